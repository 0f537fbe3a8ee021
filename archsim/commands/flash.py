"""`archsim flash`: what a flash stack sustains, what limits it, and how long it lasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.config.errors import UserError, listed
from archsim.config.loading import data_root, load_spec, read_key, resolve_preset
from archsim.config.units import Dimension, format_quantity, parse_quantity
from archsim.memory.flash import FS_PER_SECOND, FlashStandard
from archsim.memory.flash_map import retention_refresh, years_to_wear_out
from archsim.memory.flash_measure import ReadRate, random_reads, sequential_reads

if TYPE_CHECKING:
    from rich.table import Table

DEPTHS = (1, 4, 16, 64, 256, 1024)


@dataclass(frozen=True)
class FlashReport:
    """A stack's ceilings, measured rates and endurance. Rates are bytes per second of the whole stack."""

    standard: FlashStandard
    sequential: ReadRate
    random: Sequence[ReadRate]
    write_bytes_per_second: float
    write_amplification: float

    @property
    def years(self) -> float:
        """To wear-out at the write rate."""
        return years_to_wear_out(self.standard, self.write_bytes_per_second, self.write_amplification)

    @property
    def program_bytes_per_second(self) -> Fraction:
        """All planes programming."""
        o = self.standard.organisation
        return Fraction(o.channels * o.channel_planes * o.page * FS_PER_SECOND, self.standard.timings.tPROG)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON, SI units in the names."""
        s = self.standard
        refresh = retention_refresh(s)
        return {
            "memory": s.name,
            "capacity_bytes": s.capacity,
            "ceilings_bytes_per_second": {name: float(rate) for name, rate in s.ceilings.items()},
            "program_bytes_per_second": float(self.program_bytes_per_second),
            "page_read_latency_s": s.read_latency_fs / FS_PER_SECOND,
            "staging_bytes": s.staging,
            "staging_needed_bytes": s.staging_needed_bytes,
            "sequential_read": _rate(self.sequential),
            "random_read": [_rate(rate) for rate in self.random],
            "write_bytes_per_second": self.write_bytes_per_second,
            "write_amplification": self.write_amplification,
            "years_to_wear_out": self.years,
            "retention_refresh": None
            if refresh is None
            else {
                "bytes_per_second": refresh.bytes_per_second,
                "plane_share": refresh.plane_share,
                "years_to_wear_out": refresh.years_to_wear_out,
            },
        }

    def renderables(self) -> Iterator[Table]:
        """The stack, then reads by size and depth."""
        yield self._stack_table()
        yield self._rate_table()

    def _stack_table(self) -> Table:
        from rich import box
        from rich.table import Table as RichTable

        s = self.standard
        table = RichTable(
            title=s.name, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_header=False
        )
        table.add_column(no_wrap=True)
        table.add_column()
        table.add_row("capacity", format_quantity(s.capacity, Dimension.BYTES))
        for name, rate in s.ceilings.items():
            table.add_row(f"ceiling: {name}", _bandwidth(rate))
        table.add_row("ceiling: programs", _bandwidth(self.program_bytes_per_second))
        table.add_row(
            "sequential read", f"{_bandwidth(self.sequential.bytes_per_second)}, limit: {self.sequential.limit}"
        )
        table.add_row("one page alone", format_quantity(Fraction(s.read_latency_fs, FS_PER_SECOND), Dimension.TIME, 4))
        needed = f"{s.staging_needed_bytes / 2**20:.3g} MiB"
        table.add_row("staging SRAM", f"{s.staging / 2**20:.3g} MiB; 2 x bandwidth x latency is {needed}")
        writes = _bandwidth(self.write_bytes_per_second)
        table.add_row("wear-out", f"{_years(self.years)} at {writes}, write amplification {self.write_amplification:g}")
        refresh = retention_refresh(s)
        if refresh is not None:
            table.add_row(
                "retention refresh",
                f"{_bandwidth(refresh.bytes_per_second)} if full, {100 * refresh.plane_share:.2g}% of planes' time; "
                f"alone wears out in {_years(refresh.years_to_wear_out)}",
            )
        return table

    def _rate_table(self) -> Table:
        from rich import box
        from rich.table import Table as RichTable

        table = RichTable(
            title="random reads by requests under way in each channel",
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
        )
        for name in ("read size", "depth", "bandwidth", "latency"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("limit", no_wrap=True)
        for rate in sorted(self.random, key=lambda rate: (rate.access_bytes, rate.depth)):
            latency = format_quantity(Fraction(rate.mean_latency_fs) / FS_PER_SECOND, Dimension.TIME)
            bandwidth = _bandwidth(rate.bytes_per_second)
            largest = rate.depth == max(other.depth for other in self.random)
            table.add_row(
                f"{rate.access_bytes} B", str(rate.depth), bandwidth, latency, rate.limit, end_section=largest
            )
        return table


def flash(
    memory: str, changes: Sequence[str] = (), *, writes: str = "1 GB/s", write_amplification: float = 1.0
) -> FlashReport:
    """Simulate reads of a flash preset and work out its endurance. Raises UserError."""
    rate = parse_quantity(writes, Dimension.BYTES_PER_SECOND, allow_zero=False)
    if not write_amplification >= 1:
        raise UserError(f"a write amplification of {write_amplification:g}", expected="at least 1")
    standard = load_flash(memory, changes)
    o = standard.organisation
    sizes = sorted({o.granule, o.codeword, o.page})
    depths = [depth for depth in DEPTHS if depth <= standard.queue]
    return FlashReport(
        standard=standard,
        sequential=sequential_reads(standard),
        random=[random_reads(standard, size, depth) for depth in depths for size in sizes],
        write_bytes_per_second=float(rate),
        write_amplification=write_amplification,
    )


def load_flash(memory: str, changes: Sequence[str] = ()) -> FlashStandard:
    """A flash preset by name or path, with changes. Raises UserError."""
    path = resolve_preset(memory, Path())
    if read_key(path, "kind") != "flash":
        presets = sorted(file.stem for file in (data_root() / "hwconfigs" / "flash").glob("*.yaml"))
        raise UserError(f"'{memory}' is no flash memory: {path} does not say kind: flash", expected=listed(presets))
    return load_spec(path, FlashStandard, list(changes)).spec


def _rate(rate: ReadRate) -> dict[str, Any]:
    return {
        "access_bytes": rate.access_bytes,
        "depth_per_channel": rate.depth or None,
        "bytes_per_second": rate.bytes_per_second,
        "mean_latency_s": rate.mean_latency_fs / FS_PER_SECOND,
        "limit": rate.limit,
    }


def _bandwidth(rate: Fraction | float) -> str:
    return format_quantity(rate, Dimension.BYTES_PER_SECOND)


def _years(years: float) -> str:
    return f"{years:.3g} years"
