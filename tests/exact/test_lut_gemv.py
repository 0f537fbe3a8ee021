"""Products by look-up tables: the numbers, every count against plain loops, cycles against the walk of the SRAM."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.config.errors import UserError
from archsim.config.loading import data_root, load_spec
from archsim.memory.lut_gemv import LutGemv, TableLayout, lookup_words, multiply, run_lut_gemv, table_indices
from archsim.memory.sram import Gathered, SramSpec, Strided
from archsim.memory.sram_oracle import walk


def spec(**changes: object) -> SramSpec:
    """Three slices of four banks of 2000 words, two read lanes."""
    numbers = {
        "kind": "sram", "name": "small", "slices": 3, "banks": 4, "ports": 1, "word": "4 B", "clock": "1 GHz",
        "read_lanes": 2, "write_lanes": 1, "array_latency": "0.5 ns", "wire_latency": "1.5 ns",
        "energy": {"read": "0.1 pJ/b", "write": "0.2 pJ/b", "wire": "0.05 pJ/b"},
    } | changes  # fmt: skip
    return SramSpec.model_validate(numbers | {"capacity": f"{3 * int(str(numbers['banks'])) * 2000 * 4} B"})


def by_loops(product: LutGemv, weights: np.ndarray, vector: np.ndarray, slices: int) -> tuple[list[int], Counter[str]]:
    """The product subset by subset, bit by bit, and what was done on the way."""
    done: Counter[str] = Counter()
    per_slice = -(-product.groups // slices)
    totals = [[0] * product.outputs for _ in range(slices)]
    started = set()
    for group in range(product.groups):
        inputs = [int(x) for x in vector[group * product.group : (group + 1) * product.group]]
        inputs += [0] * (product.group - len(inputs))
        done["tables"] += 1
        table = []
        for subset in range(2**product.group):
            members = [x for i, x in enumerate(inputs) if subset >> i & 1]
            table.append(sum(members))
            done["table_words"] += 1
            done["build_additions"] += bin(subset).count("1") > 1
        for output in range(product.outputs):
            row = [int(w) for w in weights[output, group * product.group : (group + 1) * product.group]]
            for bit in range(product.weight_bits):
                index = sum((w >> bit & 1) << i for i, w in enumerate(row))
                value = table[index] * (-(2**bit) if bit == product.weight_bits - 1 else 2**bit)
                done["lookups"] += 1
                where = (group // per_slice, output)
                done["lookup_additions"] += where in started  # the first one is only kept
                started.add(where)
                totals[where[0]][output] += value
    sums = []
    for output in range(product.outputs):
        parts = [totals[part][output] for part in range(slices) if (part, output) in started]
        done["slice_additions"] += len(parts) - 1
        sums.append(sum(parts))
    return sums, done


shapes = st.builds(
    LutGemv,
    outputs=st.integers(1, 7),
    inputs=st.integers(1, 30),
    weight_bits=st.integers(1, 4),
    group=st.integers(1, 4),
    layout=st.sampled_from(TableLayout),
)


@settings(max_examples=80, deadline=None)
@given(product=shapes, seed=st.integers(0, 99))
def test_it_multiplies_and_counts_as_loops_do(product: LutGemv, seed: int) -> None:
    random = np.random.default_rng(seed)
    half = 1 << (product.weight_bits - 1)
    weights = random.integers(-half, half, (product.outputs, product.inputs))
    vector = random.integers(-128, 128, product.inputs)
    sums, done = by_loops(product, weights, vector, spec().slices)
    assert multiply(product, weights, vector).tolist() == sums == (weights @ vector).tolist()
    counts = run_lut_gemv(spec(), product, weights).counts
    for name in ("tables", "table_words", "build_additions", "lookups", "lookup_additions", "slice_additions"):
        assert getattr(counts, name) == done[name], name
    assert counts.multiplications == product.outputs * product.inputs


@settings(max_examples=40, deadline=None)
@given(
    product=shapes,
    organisation=st.sampled_from([(4, 1, 2, 1), (4, 2, 4, 1), (3, 1, 2, 2), (1, 1, 1, 1)]),
    refresh=st.sampled_from([None, {"retention": "130 ns", "rows": 10, "cycles": 3}]),
)
def test_cycles_are_those_of_a_walk(
    product: LutGemv, organisation: tuple[int, int, int, int], refresh: dict[str, object] | None
) -> None:
    banks, ports, lanes, bank_cycles = organisation
    small = spec(banks=banks, ports=ports, read_lanes=lanes, bank_cycles=bank_cycles, refresh=refresh)
    weights = np.random.default_rng(1).integers(
        -(1 << (product.weight_bits - 1)), 1 << (product.weight_bits - 1), (product.outputs, product.inputs)
    )
    per_slice = -(-product.groups // 3)
    run = run_lut_gemv(small, product, weights)
    words = lookup_words(small, product, table_indices(product, weights)[:, :, :per_slice])
    tables = per_slice * product.table_words
    weight_words = run.counts.weight_words // (-(-product.groups // per_slice))
    streams = [Strided(0, tables, write=True), Strided(tables, weight_words), Gathered(tuple(words.tolist()))]
    arrivals, _ = walk(small, streams)
    assert run.cycles == arrivals[-1]
    assert (run.refresh_cycles > 0) == (refresh is not None and arrivals[-1] > 13)


def test_a_batch_builds_and_looks_up_more_and_reads_weights_once() -> None:
    one = run_lut_gemv(spec(), LutGemv(8, 24, 4, 4))
    many = run_lut_gemv(spec(), LutGemv(8, 24, 4, 4, batch=3))
    assert many.counts.lookups == 3 * one.counts.lookups
    assert many.counts.table_words == 3 * one.counts.table_words
    assert many.counts.weight_words == one.counts.weight_words
    assert many.lookup_cycles == 3 * one.lookup_cycles and many.weight_cycles == one.weight_cycles


def test_tables_in_banks_of_their_own_have_no_conflicts() -> None:
    """As long as no more lanes look up than there are banks; tables over all banks do have some."""
    own = run_lut_gemv(spec(), LutGemv(32, 96, 4, 4))
    spread = run_lut_gemv(spec(), LutGemv(32, 96, 4, 4, layout=TableLayout.SPREAD))
    assert own.conflict_cycles == 0 < spread.conflict_cycles
    assert own.lookup_cycles == 32 * 4 * 8 // 2  # outputs x bits x tables of a slice / lanes


def test_against_multiplying_on_a_gpu_l2() -> None:
    """With 4-bit weights in groups of four there are as many look-ups as there would be products. Each reads a word
    of 32 bytes, which holds 64 weights: an SRAM with wide words is the wrong place for tables."""
    l2 = load_spec(data_root() / "hwconfigs" / "sram" / "sram_gpu_l2.yaml", SramSpec).spec
    run = run_lut_gemv(l2, LutGemv(1024, 1280, 4, 4))
    assert run.counts.lookups == run.counts.multiplications
    assert run.counts.lookups / run.counts.weight_words == pytest.approx(64)  # 64 weights in a word of 32 bytes
    assert run.lookup_cycles == 64 * run.weight_cycles
    assert run.energy_pj > 50 * run.multiplying_pj


@pytest.mark.parametrize(
    ("change", "message"),
    [({"group": 17}, "at most 16"), ({"outputs": 0}, "outputs is 0"), ({"group": 12, "inputs": 300}, "need .* words")],
)
def test_what_cannot_be(change: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_lut_gemv(spec(), LutGemv(**({"outputs": 4, "inputs": 16, "weight_bits": 2, "group": 4} | change)))


def test_weights_have_to_fit_shape_and_bits() -> None:
    product = LutGemv(2, 4, 2, 2)
    with pytest.raises(UserError, match="outputs by inputs"):
        run_lut_gemv(spec(), product, np.zeros((4, 2), np.int64))
    with pytest.raises(UserError, match="-2 to 1"):
        run_lut_gemv(spec(), product, np.full((2, 4), 2))
