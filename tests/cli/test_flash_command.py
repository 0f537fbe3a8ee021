"""`archsim flash` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from archsim.cli import app

runner = CliRunner()


def test_a_stack_is_measured() -> None:
    outcome = runner.invoke(app, ["flash", "son_hbf"], env={"COLUMNS": "200"})
    assert outcome.exit_code == 0, outcome.output
    for text in (
        "1.64 TB/s, limit: planes",
        "16.4 GB/s",
        "1.043 us",
        "2 x bandwidth x latency",
        "1.62 years at 1 GB/s",
    ):
        assert text in outcome.output
    assert "queue depth" in outcome.output


def test_json_has_numbers_in_si_units() -> None:
    outcome = runner.invoke(app, ["flash", "xl_flash_gen1", "--json", "--writes", "100 MB/s"])
    found = json.loads(outcome.output)
    assert found["page_read_latency_s"] == pytest.approx(8.096e-6)
    assert found["ceilings_bytes_per_second"] == {"planes": 16.384e9, "channel": 1e9}
    assert found["sequential_read"]["limit"] == "channel"
    assert found["years_to_wear_out"] == pytest.approx(1e5 * 2**34 / 1e8 / (365.25 * 86400))
    depths = [rate["depth_per_channel"] for rate in found["random_read"] if rate["access_bytes"] == 4096]
    rates = [rate["bytes_per_second"] for rate in found["random_read"] if rate["access_bytes"] == 4096]
    assert depths == sorted(depths)
    assert rates[0] == pytest.approx(4096 / 8.096e-6) and rates == sorted(rates)


def test_a_number_can_be_swept() -> None:
    fast, slow = (
        json.loads(runner.invoke(app, ["flash", "hbf_1536", f"timings.tR={t}", "--json"]).output)
        for t in ("5 us", "20 us")
    )
    assert fast["sequential_read"]["limit"] == "channel"
    assert slow["sequential_read"]["limit"] == "planes"
    assert slow["sequential_read"]["bytes_per_second"] == pytest.approx(1.6777e12 / 4, rel=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["son_hb"], "did you mean 'son_hbf'?"),
        (["hbm3_16gb_8hi"], "'hbm3_16gb_8hi' is no flash memory"),
        (["son_hbf", "organisation.page=4000B"], "a page of 4000 B is not a multiple of the codeword of 512 B"),
        (["son_hbf", "organisation.plane=7"], "did you mean 'planes'?"),
        (["son_hbf", "--writes", "3"], "'3' has no unit"),
        (["son_hbf", "--writes", "0 GB/s"], "'0 GB/s' is zero"),
        (["son_hbf", "--write-amplification", "0.5"], "expected at least 1"),
        (["son_hbf", "--write-amplification", "nan"], "expected at least 1"),
    ],
)
def test_bad_input_says_what_to_change(words: list[str], message: str) -> None:
    outcome = runner.invoke(app, ["flash", *words])
    assert outcome.exit_code == 2
    assert message in outcome.output
    assert "Traceback" not in outcome.output


def test_flash_presets_are_listed_described_and_validated(tmp_path: Path) -> None:
    listed = json.loads(runner.invoke(app, ["describe", "flash", "--json"]).output)
    assert {"hbf_1536", "xl_flash_gen1", "flint"} <= listed["flash"].keys()
    facts = json.loads(runner.invoke(app, ["describe", "flint", "--json"]).output)["facts"]
    assert facts["timings.tR"] == {"value": "2 us", "source": "FLINT"}
    assert facts["(ceiling: planes)"]["value"] == "1.049 TB/s"
    file = tmp_path / "mine.yaml"
    file.write_text("base: flint\nname: mine\norganisation: {planes: 31}\n")
    outcome = runner.invoke(app, ["validate", str(file)])
    assert outcome.exit_code != 0
    assert "capacity is 549755813888 B" in outcome.output
