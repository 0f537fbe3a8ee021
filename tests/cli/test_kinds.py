"""Files that name their kind where they need not, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from in_process import command

from archsim.config.loading import data_root

PRESETS = {
    "memory": "memory/hbm3_16gb_8hi",
    "energy": "energy/hbm_energy",
    "link": "links/nvlink4",
    "pim": "pim/aim_gddr6",
}


@pytest.mark.parametrize("kind", PRESETS)
class TestAKindThatGoesWithoutSaying:
    def test_may_be_said(self, kind: str, tmp_path: Path) -> None:
        preset = data_root() / "hwconfigs" / f"{PRESETS[kind]}.yaml"
        written = f"kind: {kind}\n{preset.read_text()}"
        (tmp_path / "said.yaml").write_text(written)
        (tmp_path / "inherited.yaml").write_text("base: said.yaml\n")
        (tmp_path / "unsaid.yaml").write_text(f"base: {preset.stem}\n")
        out, _ = command("validate", "said.yaml", "inherited.yaml", "unsaid.yaml", cwd=tmp_path)
        assert out == "".join(f"{name}.yaml: ok ({kind})\n" for name in ("said", "inherited", "unsaid"))
        schema, _ = command("schema", cwd=tmp_path)
        jsonschema.validate(yaml.safe_load(written), json.loads(schema))

    def test_is_told_from_others(self, kind: str, tmp_path: Path) -> None:
        other = "link" if kind == "memory" else "memory"
        (tmp_path / "wrong.yaml").write_text(f"kind: {other}\nbase: {PRESETS[kind].split('/')[1]}\n")
        _, err = command("validate", "wrong.yaml", cwd=tmp_path, expect=2)
        assert "is required but missing" in err and "unknown key 'kind'" not in err


def test_a_memory_of_its_kind_goes_where_a_memory_is_due(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("kind: memory\nbase: hbm3e_24gb_8hi\nname: Mine\n")
    (tmp_path / "theirs.yaml").write_text("kind: link\nbase: nvlink4\n")
    (tmp_path / "reads.trace").write_text("LD 0x0\nLD 0x40\n")
    replay = ("replay", "reads.trace", "--json", "--memory")
    out, _ = command(*replay, "mine.yaml", cwd=tmp_path)
    shipped, _ = command(*replay, "hbm3e_24gb_8hi", cwd=tmp_path)
    assert json.loads(out)["stats"] == json.loads(shipped)["stats"]
    _, err = command(*replay, "theirs.yaml", cwd=tmp_path, expect=2)
    assert "'theirs' is a link (expected a DRAM)" in err
    (tmp_path / "system.yaml").write_text("kind: system\nbase: h200\ndevice: {memory: {technology: mine.yaml}}\n")
    out, _ = command("describe", "system.yaml", "--json", cwd=tmp_path)
    assert json.loads(out)["facts"]["device.memory.technology.name"]["value"] == "Mine"
