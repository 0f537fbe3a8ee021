"""`archsim sram`: an SRAM's rates, and a matrix-vector product by look-up tables in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.config.errors import UserError, listed, nearest_name
from archsim.config.loading import load_spec
from archsim.config.presets import resolve_preset
from archsim.config.units import format_energy_pj, format_time_fs
from archsim.memory.lut_gemv import LutGemv, LutRun, TableLayout, run_lut_gemv
from archsim.memory.sram import SramSpec

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class SramReport:
    """A product on an SRAM, and what it took."""

    spec: SramSpec
    work: str
    run: LutRun

    @property
    def time_fs(self) -> int:
        """Of the whole product, rounded up."""
        return -(-self.run.cycles * self.spec.tick_fs.numerator // self.spec.tick_fs.denominator)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        run = self.run
        return {"device": self.spec.name, "work": self.work, "cycles": run.cycles, "time_fs": self.time_fs} | asdict(
            run
        )

    def table(self) -> Table:
        """For people."""
        from rich.table import Table

        run, counts = self.run, self.run.counts
        table = Table("", "", title=f"{self.work} on {self.spec.name}", title_justify="left", show_header=False)
        rows = [
            ("cycles", f"{run.cycles:,} ({format_time_fs(self.time_fs)})"),
            ("  building tables", f"{run.build_cycles:,}"),
            ("  reading weights", f"{run.weight_cycles:,}"),
            ("  looking up", f"{run.lookup_cycles:,}, of which bank conflicts {run.conflict_cycles:,}"),
            *([("  refresh", f"{run.refresh_cycles:,}")] if self.spec.refresh is not None else []),
            ("tables", f"{counts.tables:,}, {counts.table_words:,} words written"),
            ("look-ups", f"{counts.lookups:,}"),
            ("weights read", f"{counts.weight_words:,} words"),
            ("additions", f"{counts.build_additions + counts.lookup_additions + counts.slice_additions:,}"),
            ("multiplications saved", f"{counts.multiplications:,}"),
            ("energy of the SRAM", format_energy_pj(run.energy_pj)),
            ("reading weights alone", f"{run.multiplying_cycles:,} cycles, {format_energy_pj(run.multiplying_pj)}"),
        ]
        for row in rows:
            table.add_row(*row)
        return table


def run_sram(
    preset: str,
    lut_gemv: str,
    *,
    weight_bits: int = 4,
    group: int = 4,
    batch: int = 1,
    layout: str = "bank",
    changes: Sequence[str] = (),
) -> SramReport:
    """A product ("4096x4096": outputs x inputs) by look-up tables, weights drawn at random.

    Raises UserError for a preset that is none, and for work that is none or does not fit."""
    spec = load_spec(resolve_preset(preset, Path()), SramSpec, changes).spec
    sizes = lut_gemv.split("x")
    if len(sizes) != 2 or not all(size.strip().isdecimal() for size in sizes):
        raise UserError(f"--lut-gemv {lut_gemv}", expected="'4096x4096', outputs x inputs")
    layouts = [one.value for one in TableLayout]
    if layout not in layouts:
        raise UserError(
            f"there is no layout '{layout}'", expected=listed(layouts), nearest=nearest_name(layout, layouts)
        )
    outputs, inputs = (int(size) for size in sizes)
    product = LutGemv(outputs, inputs, weight_bits, group, batch, TableLayout(layout))
    work = f"GEMV {outputs} x {inputs}, {weight_bits}-bit weights, tables of {group} inputs"
    work += f", {batch} vectors" if batch > 1 else ""
    return SramReport(spec, work, run_lut_gemv(spec, product))
