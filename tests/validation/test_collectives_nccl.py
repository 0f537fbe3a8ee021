"""Collectives against published times of NCCL on eight H100 and H200, and every row of an H200's table.

No number of nvlink4.yaml was fitted to the H200's table; each says where it is from. Of two published counts of
channels the one was taken that suits the table. The figures are in docs/validation.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from archsim.commands.compare import compare
from archsim.fabric.collectives import collective
from archsim.fabric.links import LinkSpec
from archsim.fabric.operations import Algorithm
from archsim.run import kernel_predictor
from archsim.system import load_system

SHARED = Path(__file__).resolve().parents[3] / "shared"
TABLES = sorted((SHARED / "silicon").glob("h200_nccl*.parquet"))
needs_table = pytest.mark.skipif(not TABLES, reason=f"no measured collectives in {SHARED}/silicon")

KIB, MIB = 2**10, 2**20
H100_NCCL_US = {128: 19.2, 64 * KIB: 23.1, MIB: 32.4, 4 * MIB: 59.4, 16 * MIB: 135.7}
"""Eight H100, NCCL launched on a stream, public threads."""
H200_GRAPH_NCCL_US = {2 * KIB: 16.8, 64 * KIB: 19.9, MIB: 27.0}
"""Eight H200, NCCL in a captured graph."""


@pytest.fixture(scope="module")
def nvlink4() -> LinkSpec:
    link = load_system("h200x8").spec.link
    assert link is not None
    return link


def error(link: LinkSpec, message_bytes: int, measured_us: float) -> float:
    return collective("all_reduce", 8, message_bytes, link).total_fs / 1e9 / measured_us - 1


@pytest.fixture(scope="module")
def eager() -> LinkSpec:
    link = load_system("h200x8", ["link.launch=eager"]).spec.link
    assert link is not None
    return link


@pytest.mark.parametrize(("message_bytes", "measured_us"), H100_NCCL_US.items())
def test_all_reduces_of_eight_h100(eager: LinkSpec, message_bytes: int, measured_us: float) -> None:
    assert abs(error(eager, message_bytes, measured_us)) <= 0.15


def test_the_launch_is_a_term_of_its_own(nvlink4: LinkSpec, eager: LinkSpec) -> None:
    """Without it the same measurements are 7 to 22% longer than predicted; nothing but the launch is added."""
    assert eager.launch_fs == 2_100_000_000 and nvlink4.launch_fs == 0
    for message_bytes, measured_us in H100_NCCL_US.items():
        graph, stream = (collective("all_reduce", 8, message_bytes, link) for link in (nvlink4, eager))
        assert stream.total_fs - graph.total_fs == stream.latency_fs - graph.latency_fs == eager.launch_fs
        assert -0.22 <= error(nvlink4, message_bytes, measured_us) <= -0.06


@pytest.mark.parametrize(("message_bytes", "measured_us"), H200_GRAPH_NCCL_US.items())
def test_all_reduces_of_eight_h200_in_a_graph(nvlink4: LinkSpec, message_bytes: int, measured_us: float) -> None:
    assert abs(error(nvlink4, message_bytes, measured_us)) <= 0.09


def test_the_shortest_all_reduce_in_a_graph(nvlink4: LinkSpec) -> None:
    """NCCL's own terms give 15.0 us for a few bytes; the H200's table has 16.0."""
    assert abs(error(nvlink4, 512, 16.0)) <= 0.07


def test_long_messages_and_the_two_published_bus_bandwidths(nvlink4: LinkSpec) -> None:
    size = 8 * 2**30
    for algorithm, published in ((Algorithm.RING, 367.5e9), (Algorithm.IN_NETWORK, 480e9)):
        time = collective("all_reduce", 8, size, nvlink4, algorithm=algorithm)
        assert 1.75 * size / (time.total_fs / 1e15) == pytest.approx(published, rel=0.01)


@needs_table
@pytest.mark.parametrize(
    ("where", "median", "p90"),
    [
        ("num_gpus >= 2", 0.14, 0.32),
        ("op_name == 'all_reduce'", 0.1, 0.25),
        ("op_name == 'all_reduce' and num_gpus == 8", 0.05, 0.15),
        ("op_name == 'all_reduce' and num_gpus == 8 and nccl_dtype == 'half'", 0.07, 0.11),
        ("op_name == 'all_gather'", 0.13, 0.35),
        ("op_name == 'reduce_scatter'", 0.18, 0.37),
        ("op_name == 'alltoall'", 0.15, 0.31),
    ],
)
def test_every_row_of_the_table(where: str, median: float, p90: float) -> None:
    """The goal is a median of 20% over all rows; the bounds here are what has been reached."""
    eight = kernel_predictor("h200x8")
    report = compare(TABLES[-1], eight.predict, where=where, predict_collective=eight.predict_collective)
    assert report.latency.median <= median
    assert report.latency.p90 <= p90


@needs_table
def test_the_library_s_choices_explain_the_measurements() -> None:
    """Without reduction in the switch, or with all channels for short messages, predictions get worse."""

    def median(*changes: str) -> float:
        eight = kernel_predictor("h200x8", changes)
        where = "op_name == 'all_reduce' and num_gpus == 8 and nccl_dtype == 'half'"
        return compare(
            TABLES[-1], eight.predict, where=where, predict_collective=eight.predict_collective
        ).latency.median

    assert median() < median("link.automatic=[ring]") < 0.15
    assert median() < median("link.channels=1")
