"""Collectives against their closed form, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsim.config.errors import UserError
from archsim.fabric.collectives import (
    CollectiveTime,
    all_gather,
    all_reduce,
    all_to_all,
    broadcast,
    collective,
    reduce_scatter,
)
from archsim.fabric.links import LinkSpec
from archsim.fabric.operations import Algorithm
from archsim.fabric.wires import Shape
from archsim.system import load_system

PROTOCOL = {"name": "only", "base_latency": "2 us", "step_latency": "500 ns", "data_share": 1}
ONE_PROTOCOL = {
    "name": "plain",
    "bandwidth": "100 GB/s",
    "efficiency": 1,
    "automatic": ["ring"],
    "protocols": [PROTOCOL],
}


def link() -> LinkSpec:
    return LinkSpec.model_validate(ONE_PROTOCOL)


@given(st.integers(2, 16), st.integers(1, 10**10))
def test_ring_closed_form(devices: int, message_bytes: int) -> None:
    chunk = -(-message_bytes // devices)
    chunk_fs = chunk * 10_000  # 100 GB/s: ten picoseconds a byte
    for operation, steps in ((all_reduce, 2 * (devices - 1)), (all_gather, devices - 1), (reduce_scatter, devices - 1)):
        time = operation(message_bytes, devices, link())
        latency_fs = 2 * 10**9 + steps * 500 * 10**6
        assert time == CollectiveTime(
            latency_fs + steps * chunk_fs,
            latency_fs,
            steps * chunk_fs,
            steps * chunk,
            "only",
            steps,
            chunk,
            Algorithm.RING,
        )


def test_all_to_all_sends_everything_at_once() -> None:
    time = all_to_all(8000, 8, link())
    assert (time.latency_fs, time.transfer_fs, time.link_bytes) == (2_500_000_000, 7000 * 10_000, 7000)


def test_one_device_needs_no_time() -> None:
    assert all_reduce(10**6, 1, link()).total_fs == 0


@given(st.integers(2, 8), st.integers(1, 10**9), st.integers(0, 10**9))
def test_never_faster_with_more_bytes_nor_than_the_bare_link(devices: int, size: int, more: int) -> None:
    nvlink = load_h200x8_link()
    less, greater = all_reduce(size, devices, nvlink), all_reduce(size + more, devices, nvlink)
    assert less.total_fs <= greater.total_fs
    assert less.total_fs == less.latency_fs + less.transfer_fs
    assert less.transfer_fs * nvlink.bandwidth >= less.link_bytes * 10**15


LINKS: list[LinkSpec] = []


def load_h200x8_link() -> LinkSpec:
    if not LINKS:
        found = load_system("h200x8").spec.link
        assert found is not None
        LINKS.append(found)
    return LINKS[0]


def test_the_fastest_protocol_is_taken() -> None:
    nvlink = load_h200x8_link()
    chosen = [all_reduce(size, 8, nvlink).protocol for size in (1024, 8 * 2**20, 2**29)]
    assert chosen == ["LL", "LL128", "Simple"]


@pytest.mark.parametrize(
    ("algorithm", "published"), [(Algorithm.RING, (365e9, 370e9)), (Algorithm.IN_NETWORK, (475e9, 485e9))]
)
def test_long_messages_reach_the_published_bus_bandwidth(algorithm: Algorithm, published: tuple[float, float]) -> None:
    size = 8 * 2**30
    time = collective("all_reduce", 8, size, load_h200x8_link(), algorithm=algorithm)
    assert published[0] <= 2 * 7 / 8 * size / (time.total_fs / 1e15) <= published[1]


def test_auto_takes_the_fastest_that_the_library_has() -> None:
    nvlink = load_h200x8_link()
    for size in (2**10, 2**18, 2**22, 2**26, 2**30):
        asked = [collective("all_reduce", 8, size, nvlink, algorithm=choice) for choice in nvlink.automatic]
        assert all_reduce(size, 8, nvlink).total_fs == min(time.total_fs for time in asked)
    assert all_reduce(2**28, 8, nvlink).algorithm is Algorithm.IN_NETWORK


def test_a_switch_adds_only_formats_that_it_knows() -> None:
    nvlink = load_h200x8_link()
    assert collective("all_reduce", 8, 2**28, nvlink, fmt="int8").algorithm is Algorithm.RING
    assert collective("all_reduce", 8, 2**28, nvlink, fmt="bf16").algorithm is Algorithm.IN_NETWORK


def test_a_link_may_prescribe_the_algorithm() -> None:
    slow = link().model_copy(update={"algorithm": Algorithm.TREE})
    assert all_reduce(8000, 8, slow).steps == 6
    assert collective("all_reduce", 8, 8000, slow, algorithm=Algorithm.RING).steps == 14


def test_what_a_link_prescribes_holds_where_it_can() -> None:
    """A tree has no all-gather; asked for it by name, that is an error."""
    tree = link().model_copy(update={"algorithm": Algorithm.TREE})
    assert all_gather(8000, 8, tree).algorithm is Algorithm.RING
    with pytest.raises(UserError, match="tree can't do all_gather"):
        collective("all_gather", 8, 8000, tree, algorithm=Algorithm.TREE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "hierarchical"}, "no groups to go through"),
        ({"automatic": ["ring", "in_network"]}, "no switch that adds"),
        ({"peers": {"short": "only", "long": "other", "up_to": "1 B"}}, "no protocol 'other'"),
    ],
)
def test_links_that_contradict_themselves(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinkSpec.model_validate({**ONE_PROTOCOL, **changes})


def test_short_messages_get_few_channels() -> None:
    """One channel for every 100 bytes, ten in all: to 1000 bytes the time of the bytes does not grow."""
    few = {**ONE_PROTOCOL, "channels": 10, "protocols": [{**PROTOCOL, "channel_bytes": "100 B"}]}
    times = [
        collective("all_gather", 2, size, LinkSpec.model_validate(few)).transfer_fs for size in (50, 100, 1000, 2000)
    ]
    assert times == [25 * 10_000 * 10, 50 * 10_000 * 10, 500 * 10_000, 1000 * 10_000]


def test_neighbours_share_a_device_s_bandwidth() -> None:
    """A ring of wires has half of it in each direction around; one of a thousand devices is no more work to time."""
    around = link().model_copy(update={"shape": Shape.RING, "latency": 7})
    time = all_reduce(8000, 8, around)
    assert (time.latency_fs, time.transfer_fs) == (2 * 10**9 + 14 * (500 * 10**6 + 7), 14 * 1000 * 20_000)
    assert all_reduce(8000, 2, around).transfer_fs == 2 * 4000 * 10_000
    assert all_reduce(10**6, 1000, around).steps == 1998


def test_a_chain_of_pieces_broadcasts() -> None:
    """n - 1 hops, and the other n - 1 of the n pieces behind the first."""
    time = broadcast(8000, 8, link())
    assert (time.latency_fs, time.transfer_fs) == (2 * 10**9 + 7 * 500 * 10**6, 14 * 1000 * 10_000)


def test_peers_use_the_protocol_for_their_share() -> None:
    nvlink = load_h200x8_link()
    assert [all_to_all(size, 8, nvlink).protocol for size in (8 * 2**14, 8 * 2**14 + 8)] == ["LL", "Simple"]


def test_the_measured_files_spelling() -> None:
    assert collective("alltoall", 4, 4096, link()) == all_to_all(4096, 4, link())


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match=r"no collective 'all_reduc'.*did you mean 'all_reduce'"):
        collective("all_reduc", 2, 8, link())
    with pytest.raises(UserError, match="at least 1 byte"):
        all_reduce(0, 2, link())
    with pytest.raises(UserError, match="at least 1 device"):
        all_reduce(8, 0, link())
    with pytest.raises(UserError, match="at least 2 devices"):
        link().network(1)
    for protocols, message in (([], "empty"), (ONE_PROTOCOL["protocols"] * 2, "stands twice")):  # type: ignore[operator]
        with pytest.raises(ValueError, match=message):
            LinkSpec.model_validate({**ONE_PROTOCOL, "protocols": protocols})
