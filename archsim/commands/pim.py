"""`archsim pim`: one piece of work on a processing-in-memory device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.config.errors import UserError
from archsim.config.loading import load_spec
from archsim.config.presets import resolve_preset
from archsim.config.units import format_energy_pj, format_time_fs
from archsim.memory.pim import PimSpec
from archsim.memory.pim_device import PimDevice, PimResult

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class PimReport:
    """What was run on what, and what it took."""

    device: str
    work: str
    peak_bytes_per_second: float
    result: PimResult

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        result = self.result
        return {
            "device": self.device,
            "work": self.work,
            "cycles": result.ticks,
            "time_fs": result.duration_fs,
            "bandwidth_bytes_per_second": result.bytes_per_second,
            "peak_bytes_per_second": self.peak_bytes_per_second,
            "channels": result.channels,
            "commands": result.counts,
            "fences": result.fences,
            "refresh_stall_cycles": result.refresh_stall_ticks,
            "read_bytes": result.read_bytes,
            "padding_bytes": result.padding_bytes,
            "macs": result.macs,
            "energy_pj": result.energy_pj,
        }

    def table(self) -> Table:
        """For people."""
        from rich.table import Table

        result = self.result
        table = Table("", "", title=f"{self.work} on {self.device}", title_justify="left", show_header=False)
        share = result.bytes_per_second / self.peak_bytes_per_second
        useful = result.read_bytes - result.padding_bytes
        rows = [
            ("cycles", f"{result.ticks:,}"),
            ("time", format_time_fs(result.duration_fs)),
            ("bandwidth at the units", f"{result.bytes_per_second / 1e12:.3f} TB/s ({share:.1%} of MACs back to back)"),
            ("bytes read", f"{result.read_bytes:,}, of which padding {result.padding_bytes:,}"),
            ("padding", f"{result.padding_bytes / useful:.1%} on top of what was asked for"),
            ("refresh", f"{result.refresh_stall_ticks:,} cycles"),
            ("channels at work", f"{result.channels}"),
            ("commands of one channel", ", ".join(f"{n:,} {name}" for name, n in result.counts.items() if n)),
        ]
        if result.energy_pj is not None:
            rows.append(("energy", format_energy_pj(result.energy_pj)))
        for row in rows:
            table.add_row(*row)
        return table


def run_pim(
    preset: str,
    gemv: str | None,
    attention: str | None,
    *,
    tokens: int = 1,
    reads: int = 0,
    kv_heads: int | None = None,
    changes: Sequence[str] = (),
) -> PimReport:
    """Run one GEMV ("4096x4096": outputs x inputs) or one attention ("32,2048,128": heads, context, head dimension).

    Raises UserError for a preset that is none, work that is none, or work that does not fit."""
    spec = load_spec(resolve_preset(preset, Path()), PimSpec, changes).spec
    device = PimDevice(spec)
    if (gemv is None) == (attention is None):
        raise UserError("one piece of work is due", expected="either --gemv OUTxIN or --attention HEADS,CONTEXT,D_HEAD")
    if gemv is not None:
        if kv_heads is not None:
            raise UserError("--kv-heads goes with --attention")
        outputs, inputs = _numbers(gemv, "x", 2, "--gemv", "'4096x4096', outputs x inputs")
        work = f"GEMV {outputs} x {inputs}" + (f", {tokens} tokens" if tokens > 1 else "")
        result = device.gemv(outputs, inputs, tokens=tokens, reads=reads)
    else:
        assert attention is not None
        if tokens != 1 or reads:
            raise UserError("--tokens and --reads go with --gemv")
        wanted = "'32,2048,128': heads, context, head dimension"
        heads, context, head_dim = _numbers(attention, ",", 3, "--attention", wanted)
        work = f"Attention of {heads} heads over {context} tokens, head dimension {head_dim}"
        result = device.attention(heads, context, head_dim, kv_heads=kv_heads)
    return PimReport(spec.name, work, float(spec.peak_bytes_per_second), result)


def _numbers(text: str, separator: str, count: int, option: str, expected: str) -> list[int]:
    parts = text.split(separator)
    if len(parts) != count or not all(part.strip().isdecimal() for part in parts):
        raise UserError(f"{option} {text}", expected=expected)
    return [int(part) for part in parts]
