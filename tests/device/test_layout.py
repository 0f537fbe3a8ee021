"""How bytes fall on pseudo-channels: the closed forms against a walk over every burst."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsim.config.errors import UserError
from archsim.memory.layout import InterleaveSpec, Layout, Shares, parse_hash

BURST = 32


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    channels = draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    pseudo_channels = draw(st.integers(1, 2))
    granule = draw(st.sampled_from([1, 2, 8]))
    bits = (channels & -channels).bit_length() - 1
    terms = [f"channel^=round[{low + bits - 1}:{low}]" for low in draw(st.lists(st.integers(0, 5), max_size=3)) if bits]
    if pseudo_channels == 2 and draw(st.booleans()):
        terms.append("pseudo_channel^=round[1]")
    spec = InterleaveSpec(granularity=f"{granule * BURST} B", hash=" ".join(terms))
    return Layout(spec, channels, pseudo_channels, BURST, 64)


def walk(layout: Layout, pieces: list[tuple[int, int]]) -> list[list[int]]:
    """Local burst addresses of each pseudo-channel, in order, by the definition."""
    units: list[list[int]] = [[] for _ in range(layout.units)]
    last = -1
    for first_byte, size in pieces:
        begin, end = first_byte // BURST, -(-(first_byte + size) // BURST)
        for burst in range(begin, end) if size else ():
            round_, position = divmod(burst // layout.granule, layout.units)
            channel, own = divmod(position, layout.pseudo_channels)
            for term in parse_hash(layout.spec.hash):
                bits = round_ >> term.shift & term.mask
                channel, own = (channel ^ bits, own) if term.field == "channel" else (channel, own ^ bits)
            unit = channel * layout.pseudo_channels + own
            units[unit].append(round_ * layout.granule + burst % layout.granule)
            last = burst
    assert last < 1 << 40
    return units


def written_out(shares: Shares, layout: Layout) -> list[list[int]]:
    units = []
    for channel in range(layout.channels):
        for first, count in shares.of(channel):
            units.append([f + k for f, n in zip(first.tolist(), count.tolist(), strict=True) for k in range(n)])
    return units


pieces_of = st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 3_000)), min_size=1, max_size=6)


@given(layouts(), pieces_of)
def test_pieces_fall_where_the_definition_says(layout: Layout, pieces: list[tuple[int, int]]) -> None:
    begins, sizes = (np.array(column, np.int64) for column in zip(*pieces, strict=True))
    shares = layout.pieces(begins, sizes)
    expected = walk(layout, pieces)
    assert written_out(shares, layout) == expected
    assert shares.totals.tolist() == [len(unit) for unit in expected]
    assert shares.bursts == max(len(unit) for unit in expected)


@given(layouts(), st.integers(0, 100_000), st.integers(1, 100_000))
def test_a_contiguous_range_is_one_run_in_each_pseudo_channel(layout: Layout, first_byte: int, size: int) -> None:
    shares = layout.contiguous(first_byte, size)
    assert max(len(first) for channel in range(layout.channels) for first, _ in shares.of(channel)) == 1
    assert written_out(shares, layout) == walk(layout, [(first_byte, size)])


@given(layouts(), st.integers(0, 40), st.integers(1, 30_000), st.data())
def test_a_subset_holds_all_of_a_tensor(layout: Layout, start: int, size: int, data: st.DataObject) -> None:
    low = data.draw(st.integers(0, layout.channels - 1))
    high = data.draw(st.integers(low + 1, layout.channels))
    first = start * layout.granule
    shares = layout.on_channels(range(low, high), first, size)
    inside = written_out(shares, layout)
    units = layout.pseudo_channels
    assert sum(len(unit) for unit in inside) == -(-size // BURST)
    assert not any(inside[: low * units]) and not any(inside[high * units :])
    length = layout.span(size, range(low, high))
    assert all(first <= burst < first + length for unit in inside for burst in unit)


@given(layouts(), pieces_of)
def test_channels_are_of_a_kind_if_they_do_the_same(layout: Layout, pieces: list[tuple[int, int]]) -> None:
    begins, sizes = (np.array(column, np.int64) for column in zip(*pieces, strict=True))
    shares = layout.pieces(begins, sizes).moved_by(640)
    units = written_out(shares, layout)
    width = layout.pseudo_channels
    work = [units[channel * width : (channel + 1) * width] for channel in range(layout.channels)]
    for a in range(layout.channels):
        for b in range(layout.channels):
            assert (shares.kinds[a] == shares.kinds[b]) == (work[a] == work[b])


def test_an_unragged_range_is_even() -> None:
    layout = Layout(InterleaveSpec(granularity="64 B", hash="channel^=round[1:0]", ragged=False), 4, 2, BURST, 64)
    shares = layout.contiguous(100, 1000)
    assert set(shares.kinds) == {0} and len(set(shares.totals.tolist())) == 1


def test_a_hash_spreads_a_stride_that_hits_one_channel() -> None:
    """Every eighth granule: without a hash all on one pseudo-channel, with one on all of them."""
    begins = np.arange(64) * 8 * BURST
    sizes = np.full(64, BURST)
    plain = Layout(InterleaveSpec(granularity="32 B"), 8, 1, BURST, 64).pieces(begins, sizes)
    hashed = Layout(InterleaveSpec(granularity="32 B", hash="channel^=round[2:0]"), 8, 1, BURST, 64).pieces(
        begins, sizes
    )
    assert plain.totals.tolist() == [64, 0, 0, 0, 0, 0, 0, 0]
    assert hashed.totals.tolist() == [8] * 8


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"granularity": "48 B"}, "does not cut a row set"),
        ({"granularity": "32 B", "hash": "channel^=round[3:0]"}, "takes 4 bits for channel, of which there are 6"),
    ],
)
def test_what_does_not_fit_is_refused(spec: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Layout(InterleaveSpec(**spec), 6, 2, BURST, 64)


def test_a_hash_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="is no term of a channel hash"):
        parse_hash("channel^=column[3:0]")
