"""`archsim pim` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def test_a_gemv_as_json(invoke: Any) -> None:
    code, out, err = invoke("pim", "aim_gddr6", "--gemv", "4096x4096", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["device"] == "AiM GDDR6, 32 channels"
    assert report["commands"]["MACAB"] == 4096 * 4096 // 16 // 512
    assert report["time_fs"] == report["cycles"] * 500_000
    assert report["read_bytes"] == 2 * 4096 * 4096
    assert report["padding_bytes"] == 0
    assert report["energy_pj"] > 0


def test_attention_as_a_table(invoke: Any) -> None:
    code, out, err = invoke("pim", "attacc_bank", "--attention", "32,2048,128")
    assert (code, err) == (0, "")
    for words in ("Attention of 32 heads over 2048 tokens", "TB/s", "padding", "MACAB", "energy", "cycles"):
        assert words in out


def test_the_power_cap_is_a_switch(invoke: Any) -> None:
    _, capped, _ = invoke("pim", "attacc_bank", "--attention", "64,4096,128", "--json")
    _, free, _ = invoke(
        "pim", "attacc_bank", "--attention", "64,4096,128", "--set", "power_cap.enabled=false", "--json"
    )
    assert json.loads(capped)["cycles"] > 1.3 * json.loads(free)["cycles"]


def test_your_own_device_inherits(invoke: Any, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(
        "base: aim_gddr6\nname: Half an AiM\n"
        "organisation: {channels: {value: 16, source: 'estimate: half of the card'}}\n"
    )
    _, half, _ = invoke("pim", file, "--gemv", "4096x4096", "--json")
    _, whole, _ = invoke("pim", "aim_gddr6", "--gemv", "4096x4096", "--json")
    assert json.loads(half)["commands"]["MACAB"] == 2 * json.loads(whole)["commands"]["MACAB"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("aim_gddr6",), "either --gemv OUTxIN or --attention"),
        (("aim_gddr6", "--gemv", "4096"), "expected '4096x4096', outputs x inputs"),
        (("aim_gddr6", "--gemv", "0x5"), "outputs = 0"),
        (("aim_gddr6", "--attention", "1,2"), "heads, context, head dimension"),
        (("aim_gdr6", "--gemv", "1x1"), "did you mean 'aim_gddr6'?"),
        (("attacc_bank", "--attention", "1,10,100"), "does not divide into granules of 64"),
        (("attacc_bank", "--attention", "1,10,128", "--tokens", "2"), "--tokens and --reads go with --gemv"),
        (("aim_gddr6", "--gemv", "64x64", "--kv-heads", "2"), "--kv-heads goes with --attention"),
        (("aim_gddr6", "--gemv", "64x64", "--set", "timings.tRAS='99 nCK'"), "tRAS = 99 nCK is longer than tRC"),
        (("h200", "--gemv", "64x64"), "is a system (expected a PIM device)"),
    ],
)
def test_mistakes_are_explained(invoke: Any, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = invoke("pim", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_presets_are_described(invoke: Any) -> None:
    assert "tCCDAB" in invoke("describe", "attacc_bank").out
