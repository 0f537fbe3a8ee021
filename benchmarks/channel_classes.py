"""How many classes of channels a read has, and what it costs with classes and channel by channel.

    python benchmarks/channel_classes.py [--size-gb 4]

Prints a table: one read from an idle memory of an H200 (96 channels, 192 pseudo-channels), dealt in different ways.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from archsim.memory.device import HbmDevice, Range, Transfer
from archsim.memory.layout import InterleaveSpec, Layout, Shares
from archsim.system import load_system

KV_BLOCK_BYTES = 16 * 512
"""16 tokens of Llama-3-70B on one of eight devices, one layer: one KV head of 128 keys and values in bf16."""
OFFSET_BYTES = 12_345 * 32


def works(layout: Layout, size_bytes: int) -> dict[str, Range | Shares]:
    """The reads, by name; `layout` has a granularity of 256 B."""
    hashed = Layout(
        InterleaveSpec.model_validate({"granularity": "256 B", "hash": "channel^=round[4:0] channel^=round[9:5]"}),
        layout.channels, layout.pseudo_channels, layout.burst_bytes, layout.granule,
    )  # fmt: skip
    pages = np.random.default_rng(0).permutation(size_bytes // KV_BLOCK_BYTES) * KV_BLOCK_BYTES
    sizes = np.full(len(pages), KV_BLOCK_BYTES)
    return {
        "uniform": Range(0, -(-size_bytes // (layout.units * layout.burst_bytes))),
        "ragged": layout.contiguous(OFFSET_BYTES, size_bytes),
        "hashed, ragged": hashed.contiguous(OFFSET_BYTES, size_bytes),
        "24 of 96 channels": layout.on_channels(range(24), 0, size_bytes // 4),
        "paged, blocks of 8 KiB in random order": hashed.pieces(pages, sizes),
    }


def measure(device: HbmDevice, work: Range | Shares) -> tuple[float, int, int]:
    """(seconds, classes after the split, tick of the last data)."""
    device.reset()
    began = time.perf_counter()
    device.submit(Transfer((work,)))
    classes = device.classes
    done = device.advance()
    assert done is not None
    return time.perf_counter() - began, classes, done.tick


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-gb", type=float, default=4.0)
    size_bytes = int(parser.parse_args().size_gb * 10**9)
    memory = load_system("h200").spec.device.memory
    spec = InterleaveSpec.model_validate({"granularity": "256 B"})
    quick, plain = (
        HbmDevice(memory.technology, memory.controller, memory.channels, shortcuts=shortcuts, interleave=spec)
        for shortcuts in (True, False)
    )
    assert quick.layout is not None
    print(f"{'read':40} {'classes':>7} {'with classes':>13} {'again':>9} {'every channel':>14} {'time in memory':>15}")
    for name, work in {"warm up": Range(0, 100), **works(quick.layout, size_bytes)}.items():
        seconds, classes, tick = measure(quick, work)
        again, _, _ = measure(quick, work)
        plain_seconds, _, plain_tick = measure(plain, work)
        assert tick == plain_tick and (quick.channel_counts() == plain.channel_counts()).all(), name
        print(
            f"{name:40} {classes:7} {seconds:11.3f} s {again:7.3f} s {plain_seconds:12.2f} s "
            f"{quick.to_fs(tick) / 1e12:12.4f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
