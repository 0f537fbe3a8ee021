"""Mappings of attention and elementwise operators to banks: layouts, programs, and what they are made of."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pim_cases import run_kernel, run_oracle

from archsim.config.errors import SpecError, UserError
from archsim.config.loading import load_spec
from archsim.config.presets import data_root
from archsim.memory.pim import PimSpec
from archsim.memory.pim_bank_layout import OperandLayout, TokenLayout
from archsim.memory.pim_banks import bank_products, mapped_attention
from archsim.memory.pim_checker import check_pim
from archsim.memory.pim_device import PimDevice
from archsim.memory.pim_layout import Place
from archsim.memory.pim_mapping import PimMapping
from archsim.memory.pim_programs import row_attention
from archsim.memory.pim_vectors import BankVector, fits_row

LOG = 400_000
NONE = (
    "mapping.products=output_stationary", "mapping.keys=head_in_channel", "mapping.results=held",
    "mapping.scores=host", "mapping.vectors=host",
)  # fmt: skip
SMALL = ("organisation.channels=2", "organisation.rows=64")


def load(name: str = "cent_gddr6", *changes: str) -> PimSpec:
    return load_spec(data_root() / "hwconfigs" / "pim" / f"{name}.yaml", PimSpec, changes).spec


# ---- layouts ---------------------------------------------------------------------------------------------------------


def assert_one_to_one(places: list[Place], spec: PimSpec) -> None:
    organisation = spec.organisation
    assert len(set(places)) == len(places)
    limits = (organisation.channels, 1, organisation.banks, organisation.rows, organisation.columns, 16)
    assert (np.array(places).min(axis=0) >= 0).all()
    assert (np.array(places).max(axis=0) < np.array(limits)).all()


def test_a_bank_has_all_heads_of_a_token() -> None:
    spec = load("cent_gddr6", *SMALL)
    layout = TokenLayout(spec, context=50, kv_heads=9, head_dim=128)
    everywhere = list(itertools.product(range(50), range(9), range(0, 128, 5)))
    places = [layout.place(*at) for at in everywhere]
    assert_one_to_one(places, spec)
    assert all(len({place[:3] for place in places[k : k + 9 * 26]}) == 1 for k in range(0, len(places), 9 * 26))
    assert {place.row for place in places} == {0, 1, 2, 3}  # two rounds of 32 banks, eight heads in a row and one
    assert (layout.rounds, layout.heads_of_rows) == (2, [8, 1])
    assert layout.padding_bytes == (64 - 50) * 9 * 128 * 2


@pytest.mark.parametrize(("vectors", "elements", "width"), [(5, 100, 4), (19, 1100, 4), (16, 40, 2), (3, 16, 2)])
def test_operands_of_a_product_lie_side_by_side(vectors: int, elements: int, width: int) -> None:
    spec = load("cent_gddr6", *SMALL)
    layout = OperandLayout(spec, vectors, elements, width)
    banks = range(min(width, 3))
    places = {at: layout.place(*at) for at in itertools.product(range(vectors), range(elements), banks)}
    assert_one_to_one(list(places.values()), spec)
    for (vector, element, bank), place in places.items():
        first = places[vector, element, 0]
        assert place == first._replace(bank=first.bank + bank)
        assert first.bank % width == 0
    assert layout.sets == len({(place.channel, place.bank // width) for place in places.values()})
    assert layout.channels == len({place.channel for place in places.values()})
    assert layout.rows == 1 + max(place.row for place in places.values())
    first_channel = {place.bank // width for place in places.values() if place.channel == 0}
    assert layout.busiest_sets == len(first_channel)
    assert layout.load * layout.channels * layout.busiest_sets == layout.sets


def test_a_cut_vector_is_spread_over_all_groups() -> None:
    layout = OperandLayout.cut(load(), 4096, 4)
    assert (layout.vectors, layout.elements, layout.channels) == (128, 32, 32)
    odd = OperandLayout.cut(load(), 11008, 4)
    assert (odd.elements, odd.vectors) == (96, 115)
    assert odd.vectors * odd.elements >= 11008 > (odd.vectors - 1) * odd.elements


# ---- programs --------------------------------------------------------------------------------------------------------


MAPPINGS = [
    (),
    ("mapping.keys=head_in_channel",),
    ("mapping.results=held",),
    ("mapping.scores=host",),
    ("mapping.scores=host", "mapping.results=held"),
    ("mapping.keys=head_in_channel", "mapping.results=held"),
    ("mapping.port_clocks=3",),
]


@pytest.mark.parametrize("changes", MAPPINGS, ids=" ".join)
@pytest.mark.parametrize(("heads", "kv_heads", "context"), [(32, 32, 700), (24, 3, 1100), (150, 150, 40)])
def test_attention_obeys_the_rules(changes: tuple[str, ...], heads: int, kv_heads: int, context: int) -> None:
    spec = load("cent_gddr6", *changes)
    device = PimDevice(spec)
    result = device.attention(heads, context, 128, kv_heads=kv_heads, log=LOG)
    assert len(result.log) == sum(result.counts.values())
    assert check_pim(device.rules, result.log) == []
    assert result.read_bytes - result.padding_bytes == 2 * heads * context * 128 * 2
    assert result.macs == 2 * heads * context * 128
    plain = PimDevice(spec, fast_forward=False).attention(heads, context, 128, kv_heads=kv_heads)
    assert (plain.ticks, plain.counts, plain.events) == (result.ticks, result.counts, result.events)


@pytest.mark.parametrize("kind", BankVector)
@pytest.mark.parametrize("elements", [48, 4096, 11008])
def test_vectors_obey_the_rules(kind: BankVector, elements: int) -> None:
    device = PimDevice(load())
    result = device.vector(kind, elements, log=LOG)
    assert len(result.log) == sum(result.counts.values()) > 0
    assert check_pim(device.rules, result.log) == []
    assert PimDevice(load(), fast_forward=False).vector(kind, elements).ticks == result.ticks


@pytest.mark.parametrize("changes", MAPPINGS[:3], ids=" ".join)
def test_programs_are_the_oracles(changes: tuple[str, ...]) -> None:
    spec = load("cent_gddr6", *SMALL, *changes)
    rules = spec.rules_table()
    for work in mapped_attention(spec, rules, heads=9, queries=2, context=40, head_dim=32):
        kernel, oracle = run_kernel(rules, work.program, log=True), run_oracle(rules, work.program)
        assert kernel.log == oracle.log
        assert kernel.finish == oracle.finish


CHOICES = st.fixed_dictionaries(
    {
        "products": st.sampled_from(["output_stationary", "input_stationary"]),
        "keys": st.sampled_from(["head_in_channel", "token_in_bank"]),
        "results": st.sampled_from(["held", "each"]),
        "scores": st.sampled_from(["host", "banks"]),
        "port_clocks": st.integers(1, 40),
    }
)
ROOMY = ("organisation.channels=2",)


@settings(max_examples=25)
@given(CHOICES, st.integers(1, 20), st.integers(1, 3), st.integers(1, 1100), st.integers(1, 8), st.integers(1, 9))
def test_any_mapping_obeys_the_rules_and_skips_exactly(
    choices: dict[str, object], kv_heads: int, queries: int, context: int, bursts: int, accumulators: int
) -> None:
    units = (f"units.accumulators={accumulators}", f"units.outputs_per_input_load={accumulators}")
    spec = load("cent_gddr6", *ROOMY, *units, *(f"mapping.{name}={value}" for name, value in choices.items()))
    heads, head_dim = kv_heads * queries, 16 * bursts
    device = PimDevice(spec)
    logged = device.attention(heads, context, head_dim, kv_heads=kv_heads, log=LOG)
    assert check_pim(device.rules, logged.log) == []
    assert logged.read_bytes - logged.padding_bytes == 2 * heads * context * head_dim * 2
    fast = device.attention(heads, context, head_dim, kv_heads=kv_heads)
    assert (fast.ticks, fast.counts, fast.events) == (logged.ticks, logged.counts, logged.events)


def test_without_a_mapping_attention_is_products_on_a_heads_channel() -> None:
    """The preset's registers and single-bank commands alone change nothing of that."""
    spec = load("cent_gddr6", *NONE)
    assert spec.mapping.whole_heads
    device = PimDevice(spec)
    expected = device.run(row_attention(spec, device.rules, 32, 1, 700, 128))
    found = device.attention(32, 700, 128)
    assert (found.ticks, found.counts) == (expected.ticks, expected.counts)
    for name in ("aim_gddr6", "pim_gpt", "neupims", "attacc_bank", "hbm_pim"):
        assert load(name).mapping == PimMapping()


def test_commands_of_attention_are_those_of_cents_traces() -> None:
    """Llama-2-7B at 4096 tokens: 32 heads of 128 elements, on 32 channels of 16 banks."""
    result = PimDevice(load()).attention(32, 4096, 128)
    rounds, rows, heads_of_a_row = 4096 // 512, 32 * 128 // 1024, 8
    outputs, chunks = 128 // 16, 4096 // 1024
    scores, context = rounds * rows * heads_of_a_row, outputs * chunks
    assert result.counts["RDRES"] == result.counts["WRBIAS"] == scores + context
    assert result.counts["MACAB"] == scores * 8 + context * 64
    assert result.counts["WRGB"] == rounds * rows * 64 + chunks * 64
    heads, bursts = 4, 4096 // 16  # of a channel: one in each bank group
    assert result.counts["WRSBK"] == 2 * 2 * heads * bursts
    assert result.counts["RDSBK"] == 2 * heads * bursts
    assert result.counts["EWMUL"] == 2 * bursts
    assert result.counts["ACTAB"] == rounds * rows + context + 2 * chunks
    buffers_and_results = 32 * 32 * (result.counts["WRGB"] + result.counts["RDRES"])  # channels, bytes
    assert result.events.pin_bytes == buffers_and_results + 6 * 32 * 4096 * 2
    assert result.events.macs == 2 * 32 * 4096 * 128 + 2 * 32 * 4096


@pytest.mark.parametrize("accumulators", [1, 32])
def test_a_filling_of_the_buffer_serves_all_outputs_or_those_that_accumulators_hold(accumulators: int) -> None:
    """2^15 outputs of 4096 inputs: 64 outputs of each bank, four fillings of the buffer for each."""
    units = (f"units.accumulators={accumulators}", f"units.outputs_per_input_load={accumulators}")
    inputs, outputs = (
        PimDevice(load("cent_gddr6", f"mapping.products={order}_stationary", *units)) for order in ("input", "output")
    )
    by_input, by_output = inputs.gemv(2**15, 4096, log=LOG), outputs.gemv(2**15, 4096, log=LOG)
    assert by_input.counts["WRGB"] == 4 * 64
    assert by_output.counts["WRGB"] == 64 // accumulators * 4 * 64
    assert by_input.counts["RDRES"] == by_input.counts["WRBIAS"] == 4 * 64
    assert by_output.counts["RDRES"] == by_output.counts["WRBIAS"] == 64
    assert by_input.counts["MACAB"] == by_output.counts["MACAB"]
    assert (by_input.ticks < by_output.ticks) == (accumulators == 1)
    assert check_pim(inputs.rules, by_input.log) == []


@pytest.mark.parametrize("port", [1, 3])
@pytest.mark.parametrize(("heads", "context"), [(32, 4096), (20, 1030), (200, 2048)])
def test_scores_pass_the_port_at_its_rate(port: int, heads: int, context: int) -> None:
    """Six times, burst by burst: never faster, and slower by little more than the products between."""
    spec = load("cent_gddr6", f"mapping.port_clocks={port}")
    device = PimDevice(spec)
    layout = OperandLayout.of_scores(spec, heads, context)
    result = device.run(bank_products(spec, device.rules, layout))
    at_port = 3 * port * layout.sets * layout.per_set * sum(layout.row_bursts)
    products = result.counts["EWMUL"] * spec.clocks("tCCDL") + layout.rows * 150
    assert at_port <= result.ticks <= 1.03 * at_port + products + 200


def test_the_port_does_not_bind_where_the_channel_is_slower() -> None:
    """One head: a burst every tCCD, not every clock."""
    spec = load()
    device = PimDevice(spec)
    layout = OperandLayout.of_scores(spec, 1, 1024)
    assert device.run(bank_products(spec, device.rules, layout)).ticks > 3 * 64 * spec.clocks("tCCDL")


def test_reading_each_result_and_moving_scores_cost_what_they_cost() -> None:
    def ticks(*changes: str) -> int:
        return PimDevice(load("cent_gddr6", *changes)).attention(32, 2048, 128).ticks

    assert ticks() > ticks("mapping.results=held") > ticks("mapping.results=held", "mapping.scores=host")
    assert ticks() > 2 * ticks("mapping.scores=host", "mapping.results=held")


def test_other_row_families_can_lay_keys_by_tokens() -> None:
    for name in ("neupims", "pim_gpt", "aim_gddr6"):
        spec = load(name, "mapping.products=input_stationary", "mapping.keys=token_in_bank", "mapping.results=each")
        device = PimDevice(spec)
        result = device.attention(16, 600, 64, log=LOG)
        assert check_pim(device.rules, result.log) == []
        assert result.read_bytes - result.padding_bytes == 2 * 16 * 600 * 64 * 2


def test_a_row_decides_what_banks_take() -> None:
    spec = load()
    most = 128 * 1024
    assert fits_row(spec, BankVector.NORM, most) and not fits_row(spec, BankVector.NORM, most + 1)
    assert fits_row(spec, BankVector.ROTARY, most // 2) and not fits_row(spec, BankVector.ROTARY, most // 2 + 1)


def test_looked_up_values_are_read_one_by_one() -> None:
    counts = PimDevice(load()).vector(BankVector.GATED, 11008).counts
    assert counts["AF"] == counts["RDAF"] == -(-11008 // 512)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("attacc_bank", ("mapping.keys=token_in_bank",), "mapping is for families whose banks hold rows of a matrix"),
        ("hbm_pim", ("mapping.results=each",), "mapping is for families whose banks hold rows of a matrix"),
        ("aim_gddr6", ("mapping.scores=banks",), "mapping.scores: banks needs the commands ACT, PRE, WRSBK, RDSBK"),
        ("aim_gddr6", ("mapping.vectors=banks",), "mapping.vectors: banks needs mapping.port_clocks"),
        ("cent_gddr6", ("mapping.keys=token",), "token_in_bank"),
        ("cent_gddr6", ("mapping.port_clocks=0",), "port_clocks"),
    ],
)
def test_a_mapping_that_the_device_can_not_do_is_refused(name: str, changes: tuple[str, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(name, *changes)


def test_work_that_does_not_fit_a_mapping_is_refused() -> None:
    device = PimDevice(load())
    with pytest.raises(UserError, match="heads of 100 elements can't share the rows of a token"):
        device.attention(4, 100, 100)
    with pytest.raises(UserError, match="take 262144 rows of each bank, a bank has 16384"):
        device.attention(512, 2**21, 128)
    with pytest.raises(UserError, match="leaves elementwise operators to the host"):
        PimDevice(load("aim_gddr6")).vector(BankVector.NORM, 4096)
    with pytest.raises(UserError, match="elements = 0"):
        device.vector(BankVector.NORM, 0)
    with pytest.raises(UserError, match=r"its port takes 127\d\d clocks for an access to each of 128 sets"):
        PimDevice(load("cent_gddr6", "mapping.port_clocks=100")).attention(128, 4096, 128)
    with pytest.raises(UserError, match="can't be cut into sets of 3"):
        OperandLayout(load(), 4, 64, 3)
    narrow = load("cent_gddr6", *SMALL)
    with pytest.raises(UserError, match="rows of a bank, a bank has 64"):
        OperandLayout.of_scores(narrow, 1000, 4096)
