"""`archsim collective` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from archsim.cli import app

runner = CliRunner()


def answer(*words: str) -> dict[str, object]:
    result = runner.invoke(app, ["collective", *words, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_a_system_knows_its_link_and_devices() -> None:
    found = answer("h200x8", "--bytes", "1MiB")
    assert (found["on"], found["devices"], found["operation"]) == ("NVLink 4", 8, "all_reduce")
    assert (found["algorithm"], found["protocol"]) == ("ring", "LL")
    # NCCL's terms by hand: 6.6 + 14 x 0.6 us, and 14 eighths of the message at 141 GB/s.
    assert found["latency_fs"] == 15 * 10**9
    assert found["transfer_fs"] == 14 * -(-131072 * 10**15 // (141 * 10**9))
    assert found["total_fs"] == found["latency_fs"] + found["transfer_fs"]  # type: ignore[operator]


def test_bus_bandwidth_is_that_of_nccl_tests() -> None:
    for operation, factor in (("all_reduce", 1.75), ("all_gather", 0.875), ("all_to_all", 0.875), ("broadcast", 1)):
        found = answer("nvlink4", "--devices", "8", "--bytes", "1 GiB", "--operation", operation)
        rate = 2**30 / (float(str(found["total_fs"])) * 1e-15)
        assert found["algorithm_bytes_per_second"] == pytest.approx(rate)
        assert found["bus_bytes_per_second"] == pytest.approx(factor * rate)


def test_the_page_for_people() -> None:
    result = runner.invoke(app, ["collective", "h200x8", "--bytes", "256 MiB"])
    assert result.exit_code == 0
    for words in ("all_reduce of 256 MiB among 8 devices: NVLink 4", "in_network, Simple", "latency", "bus bandwidth"):
        assert words in result.stdout


def test_algorithms_can_be_asked_for() -> None:
    names = ("ring", "tree", "recursive_doubling", "direct", "one_shot", "in_network")
    found = {name: answer("nvlink4", "--devices", "8", "--bytes", "1 GiB", "--algorithm", name) for name in names}
    assert all(found[name]["algorithm"] == name for name in names)
    assert len({found[name]["total_fs"] for name in names}) == len(names)
    prescribed = answer("h200x8", "--bytes", "1 GiB", "--set", "link.algorithm=tree")
    assert prescribed["total_fs"] == found["tree"]["total_fs"]


def test_a_network_of_two_nodes() -> None:
    found = answer("h100_2x8", "--bytes", "64 MiB")
    assert (found["devices"], found["algorithm"]) == (16, "hierarchical")
    slower = answer("h100_2x8", "--bytes", "64 MiB", "--set", "step_latency=10 us")
    assert slower["latency_fs"] > found["latency_fs"]  # type: ignore[operator]


def test_one_s_own_link(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: nvlink4\nname: twice as wide\nbandwidth: 900 GB/s\n")
    mine, theirs = (answer(link, "--devices", "8", "--bytes", "1 GiB") for link in (str(file), "nvlink4"))
    assert mine["on"] == "twice as wide"
    assert mine["transfer_fs"] == pytest.approx(float(str(theirs["transfer_fs"])) / 2, rel=1e-9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nvlnk4", "--devices", "2"], "did you mean 'nvlink4'?"),
        (["nvlink4"], "unknown number of devices (expected --devices with 2 or more)"),
        (
            ["nvlink5", "--devices", "8", "--set", "launch=eager"],
            "NVLink 5 doesn't say what a launch on a stream takes (expected `eager_launch`, or launch: graph)",
        ),
        (["nvlink4", "--devices", "1"], "a collective of 1 device (expected --devices with 2 or more)"),
        (["nvlink4", "--devices", "-3"], "a collective of -3 devices (expected"),
        (
            ["h200x8", "--devices", "16"],
            "16 devices are wanted, 8 x NVIDIA H200 SXM, NVLink 4 has 8 (expected at most 8",
        ),
        (["h200"], "has no link"),
        (["h100_2x8", "--devices", "4"], "has 16 devices, not 4"),
        (["h100_2x8", "--algorithm", "in_network"], "no switch of 2 x 8 H100"),
        (["h200x8", "--operation", "all_reduse"], "did you mean 'all_reduce'?"),
        (["h200x8", "--algorithm", "rings"], "did you mean 'ring'?"),
        (["h200x8", "--algorithm", "ring", "--operation", "all_to_all"], "ring can't do all_to_all (expected direct"),
        (["h200x8", "--algorithm", "in_network", "--format", "int8"], "can't add int8 (expected one of bf16"),
        (["nvlink3", "--devices", "8", "--algorithm", "in_network"], "NVLink 3 has no switch that adds"),
        (["nvlink4", "--devices", "6", "--algorithm", "recursive_doubling"], "expected a power of two devices"),
        (["nvlink4", "--devices", "8", "--algorithm", "hierarchical"], "expected equal groups"),
        (["h200x8", "--bytes", "100"], "--bytes: '100' has no unit"),
        (["h200x8", "--bytes", "0 B"], "over 0 bytes (expected at least 1 byte)"),
        (["h200x8", "--bytes", "0.3 B"], "not a whole number of bytes"),
        (["h200x8", "--set", "link.bandwidth=0 GB/s"], "link.bandwidth: '0 GB/s' is zero"),
        (["hbm3_16gb_8hi"], "there is no system, link or topology 'hbm3_16gb_8hi'"),
    ],
)
def test_what_can_t_be_done(words: list[str], message: str) -> None:
    result = runner.invoke(app, ["collective", *words])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_memory_is_no_network(tmp_path: Path) -> None:
    file = tmp_path / "memory.yaml"
    file.write_text("base: hbm3_16gb_8hi\nname: no link\n")
    result = runner.invoke(app, ["collective", str(file), "--devices", "2"])
    assert result.exit_code == 2
    assert "is no system, link or topology" in result.stderr


@pytest.mark.parametrize(("size", "leaves"), [("1 MiB", "1.75 MiB"), ("1 MB", "1.75 MB"), ("960 kB", "1680 kB")])
def test_sizes_side_by_side_are_in_one_unit(size: str, leaves: str) -> None:
    result = runner.invoke(app, ["collective", "h200x8", "--bytes", size, "--algorithm", "ring"])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert f"all_reduce of {size} among" in said and f"leaves each device {leaves} " in said
    assert "latency of 14 steps" in said
