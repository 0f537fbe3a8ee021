"""A made-up run that looks like Llama-3-70B on eight H200-class GPUs, for the tests of results and report."""

from __future__ import annotations

import random
from typing import Any

from archsim.records import BandwidthSample, Counts, OperatorKind, OperatorRecord, RequestRecord, Span
from archsim.results import ChannelClass, PhaseData, Provenance, RunData

PEAK_HBM, PEAK_BF16 = 4_800_000_000_000, 989_400_000_000_000
LAYERS, DEVICES, BURST = 80, 8, 64
FS = 10**15

# name, kind, weight bytes and activation bytes of one device and layer, FLOPs per token of one device and layer
_JOBS = (
    ("attention_norm", OperatorKind.NORM, 0, 32_768, 0),
    ("qkv_proj", OperatorKind.GEMM, 20_971_520, 18_944, 20_971_520),
    ("rope", OperatorKind.ROPE, 0, 4_608, 0),
    ("kv_append", OperatorKind.KV_APPEND, 0, 512, 0),
    ("attention", None, 0, 4_096, 0),
    ("o_proj", OperatorKind.GEMM, 16_777_216, 18_432, 16_777_216),
    ("attention_all_reduce", OperatorKind.ALL_REDUCE, 0, 0, 0),
    ("mlp_norm", OperatorKind.NORM, 0, 32_768, 0),
    ("gate_up_proj", OperatorKind.GEMM, 117_440_512, 30_720, 117_440_512),
    ("swiglu", OperatorKind.ACTIVATION, 0, 21_504, 0),
    ("down_proj", OperatorKind.GEMM, 58_720_256, 23_552, 58_720_256),
    ("mlp_all_reduce", OperatorKind.ALL_REDUCE, 0, 0, 0),
)


def fabricated_run(*, layers: int = LAYERS, requests: int = 0, name: str = "llama3_70b_h200x8", **more: Any) -> RunData:
    """A run of two phases: prefill of 2048 tokens, decode of 32 sequences at context 8192."""
    prefill = _phase("prefill", layers, tokens=2048, sequences=1, context=1024, start_fs=0)
    decode = _phase("decode", layers, tokens=32, sequences=32, context=8192, start_fs=prefill.records[-1].end_fs)
    given: dict[str, Any] = {
        "name": name,
        "phases": (prefill, decode),
        "config": {
            "system": "h200x8",
            "workload": {"model": "llama-3-70b", "batch": 32, "context": 8192, "prompt": 2048},
            "precision": {"weights": "bf16", "kv": "bf16", "activations": "bf16"},
        },
        "digest": "sha256:3f1c0d7e9a55",
        "seed": 1,
        "requests": fabricated_requests(requests),
        "facts": {"model": "llama-3-70b, bf16", "system": "h200x8: 8 x H200-class, tensor parallel 8"},
        "sources": {
            "system.gpu.hbm.timings.tRCD": "JESD238A, table 89",
            "system.gpu.matrix.efficiency": "estimate: tile quantisation of large GEMMs in public benchmarks",
        },
        "provenance": (
            Provenance(subject="HBM timing", standing="exact", note="every command obeys the standard's constraints"),
            Provenance(subject="Energy", standing="model", note="event counts times energy per event"),
        ),
        "wall_seconds": 3.25,
        "command": ("archsim", "run", "experiment.yaml"),
    }
    return RunData(**(given | more))


def fabricated_requests(count: int) -> list[RequestRecord]:
    """Requests with plausible times, always the same."""
    draw = random.Random(5)
    records = []
    for index in range(count):
        arrival = index * FS // 4
        first = arrival + int(draw.lognormvariate(-2.5, 0.5) * FS)
        tokens = draw.randint(1, 300)
        finish = first + (tokens - 1) * int(draw.uniform(0.008, 0.014) * FS)
        prompt, energy_pj = draw.randint(50, 4000), 2e12 * tokens
        records.append(RequestRecord(index, arrival, arrival + FS // 100, first, finish, prompt, tokens, energy_pj))
    return records


def _phase(phase: str, layers: int, *, tokens: int, sequences: int, context: int, start_fs: int) -> PhaseData:
    records, now = [], start_fs
    for layer in range(layers):
        for job, kind, weights, activations, flops in _JOBS:
            known = kind or (OperatorKind.PREFILL_ATTENTION if phase == "prefill" else OperatorKind.DECODE_ATTENTION)
            moved, work = weights * 2 // 2 + activations * tokens, 2 * flops * tokens // 2
            if job == "attention":
                moved += 512 * context * sequences if phase == "decode" else 512 * tokens
                work += 4 * 1024 * context * tokens
            record = _record(f"layers[{layer}].{job}", known, layer, phase, now, moved, work, tokens)
            records.append(record)
            now = record.end_fs
    spans = [_span(record) for record in records]
    total = Counts()
    for record in records:
        total.add(record.counts)
    return PhaseData(
        phase=phase,
        description=f"{tokens} prompt tokens" if phase == "prefill" else f"{sequences} sequences, context {context}",
        records=records,
        tokens=tokens,
        sequences=sequences,
        devices=DEVICES,
        peak_hbm_bytes_per_second=PEAK_HBM,
        peak_matrix_flops_per_second=PEAK_BF16,
        energy_pj=_energy(total, now - start_fs),
        channels=_channels(total),
        spans=spans,
        bandwidth=[_sample(record) for record in records],
    )


def _record(
    name: str, kind: OperatorKind, layer: int, phase: str, start: int, moved: int, work: int, tokens: int
) -> OperatorRecord:
    memory, compute = moved * FS // PEAK_HBM, work * FS // PEAK_BF16
    link = 9_000_000_000 + 16_384 * tokens * FS // 900_000_000_000 if kind == OperatorKind.ALL_REDUCE else 0
    causes = {
        "launch": 2_500_000_000,
        "compute": max(0, compute * 125 // 100 - memory),
        "transfer": memory,
        "row": memory // 40,
        "turnaround": memory // 90,
        "refresh": memory // 16,
        "fill": 700_000_000 if moved else 0,
        "link": link,
    }
    bound = "link" if link else "compute" if compute > memory else "memory"
    reads = moved // BURST
    misses = reads // 16
    counts = Counts(
        dram_activates=misses, dram_precharges=misses, dram_reads=reads * 9 // 10, dram_writes=reads // 10,
        dram_row_hits=reads - misses, dram_row_misses=misses * 3 // 4, dram_row_conflicts=misses - misses * 3 // 4,
        dram_read_bytes=moved * 9 // 10, dram_write_bytes=moved - moved * 9 // 10,
        dram_busy_ticks=memory // 10**6, dram_refresh_ticks=memory // 16 // 10**6,
        dram_turnaround_ticks=memory // 90 // 10**6, dram_row_ticks=memory // 40 // 10**6,
        dram_idle_ticks=(sum(causes.values()) - memory) // 10**6, matrix_macs={"bf16": work // 2},
    )  # fmt: skip
    return OperatorRecord(
        name=name, kind=kind, layer=layer, phase=phase, iteration=0,
        start_fs=start, end_fs=start + sum(causes.values()),
        bound=bound, roofline_fs=max(memory, compute, link), cause_fs=causes, matrix_flops=work,
        vector_flops=tokens * 8192 if kind == OperatorKind.NORM else 0, counts=counts,
    )  # fmt: skip


def _span(record: OperatorRecord) -> Span:
    unit = {"memory": "HBM", "compute": "Matrix", "link": "Link"}[record.bound]
    return Span(f"GPU[0].{unit}", record.name, record.start_fs, record.end_fs)


def _sample(record: OperatorRecord) -> BandwidthSample:
    counts = record.counts
    return BandwidthSample(record.start_fs, record.end_fs, counts.dram_read_bytes, counts.dram_write_bytes)


def _energy(total: Counts, elapsed_fs: int) -> dict[str, float]:
    moved = total.dram_read_bytes + total.dram_write_bytes
    return {
        "hbm.activate": DEVICES * 909.0 * total.dram_activates,
        "hbm.column": DEVICES * 8 * 1.51 * moved,
        "hbm.io": DEVICES * 8 * 0.8 * moved,
        "hbm.refresh": DEVICES * 8 * 0.1 * moved,
        "sram": DEVICES * 8 * 0.3 * moved,
        "noc": DEVICES * 8 * 0.4 * moved,
        "link": DEVICES * 1.2e9,
        "matrix.bf16": DEVICES * 0.55 * sum(total.matrix_macs.values()),
        "static": DEVICES * 110.0 * elapsed_fs / 1e3,
    }


def _channels(total: Counts) -> tuple[ChannelClass, ...]:
    one = Counts(
        **{
            field: getattr(total, field) // 192
            for field in ("dram_row_hits", "dram_row_misses", "dram_row_conflicts", "dram_reads", "dram_writes")
        }
    )
    ticks = ("busy", "refresh", "turnaround", "row", "idle")
    for name in ticks:
        setattr(one, f"dram_{name}_ticks", getattr(total, f"dram_{name}_ticks"))
    last = Counts(dram_row_hits=90, dram_row_misses=6, dram_row_conflicts=4, dram_busy_ticks=80, dram_idle_ticks=20)
    return ChannelClass(label="channels 0-190", weight=191, counts=one), ChannelClass(
        label="channel 191", weight=1, counts=last
    )
