"""Iteration-level batching: conservation over random traces, order, limits, and clear refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsim.config.errors import UserError
from archsim.experiment_spec import BatchingPolicy, BatchingSpec
from archsim.records import RequestRecord
from archsim.serving.batching import POLICIES, Chunk, Iteration, Queues, Scheduler
from archsim.workload.requests import Request

STEP_FS = 1000


def requests_of(*rows: tuple[int, int, int]) -> list[Request]:
    return [Request(index, *row) for index, row in enumerate(rows)]


def run(scheduler: Scheduler, energy_pj: float = 0.0) -> tuple[list[Iteration], int]:
    """Iterations that take one step per new token; the time at the end."""
    now_fs, iterations = 0, []
    while not scheduler.finished:
        iteration = scheduler.next_iteration(now_fs)
        if iteration is None:
            arrival_fs = scheduler.next_arrival_fs()
            assert arrival_fs is not None and arrival_fs > now_fs
            now_fs = arrival_fs
            continue
        now_fs += STEP_FS * iteration.tokens
        scheduler.complete(iteration, now_fs, energy_pj)
        iterations.append(iteration)
    return iterations, now_fs


rows = st.tuples(st.integers(0, 50_000), st.integers(1, 60), st.integers(1, 20))


@given(st.lists(rows, min_size=1, max_size=25), st.integers(1, 8), st.integers(1, 70), st.integers(0, 100))
def test_every_request_finishes_and_its_tokens_add_up(
    trace: list[tuple[int, int, int]], max_batch: int, max_prefill_tokens: int, spare: int
) -> None:
    requests = requests_of(*trace)
    capacity = max(request.context_tokens + request.generated_tokens - 1 for request in requests) + spare
    scheduler = Scheduler(requests, BatchingSpec(max_batch=max_batch, max_prefill_tokens=max_prefill_tokens), capacity)
    iterations, end_fs = run(scheduler, energy_pj=7.0)

    assert [(r.request_id, r.context_tokens, r.generated_tokens) for r in scheduler.records] == [
        (r.request_id, r.context_tokens, r.generated_tokens) for r in requests
    ]
    computed = [0] * len(requests)
    for iteration in iterations:
        assert len(iteration.chunks) <= max_batch
        if iteration.phase == "prefill":
            assert iteration.tokens <= max_prefill_tokens
        for chunk in iteration.chunks:
            assert chunk.context_before == computed[chunk.request]
            computed[chunk.request] += chunk.new_tokens
    assert computed == [request.context_tokens + request.generated_tokens - 1 for request in requests]
    for record in scheduler.records:
        assert record.arrival_fs <= record.first_scheduled_fs < record.first_token_fs <= record.finish_fs <= end_fs
    assert sum(record.energy_pj for record in scheduler.records) == pytest.approx(7.0 * len(iterations))
    assert scheduler.reserved_tokens == 0
    assert scheduler.next_iteration(end_fs) is None


@given(st.lists(rows, min_size=2, max_size=20), st.integers(1, 4))
def test_first_come_first_served(trace: list[tuple[int, int, int]], max_batch: int) -> None:
    scheduler = Scheduler(requests_of(*trace), BatchingSpec(max_batch=max_batch, max_prefill_tokens=64), 100)
    run(scheduler)
    in_order = sorted(scheduler.records, key=lambda record: (record.arrival_fs, record.request_id))
    starts = [record.first_scheduled_fs for record in in_order]
    assert starts == sorted(starts)


def test_a_prompt_runs_before_decodes_and_gives_the_first_token() -> None:
    scheduler = Scheduler(requests_of((0, 10, 3), (10_500, 5, 1)), BatchingSpec(), 1000)
    iterations, _ = run(scheduler)
    assert [(iteration.phase, iteration.shapes) for iteration in iterations] == [
        ("prefill", ((10, 0),)),
        ("decode", ((1, 10),)),
        ("prefill", ((5, 0),)),
        ("decode", ((1, 11),)),
    ]
    first, second = scheduler.records
    assert (first.ttft_fs, first.finish_fs, first.tpot_fs) == (10_000, 17_000, 3_500)
    assert (second.first_scheduled_fs, second.first_token_fs, second.finish_fs) == (11_000, 16_000, 16_000)


def test_a_long_prompt_is_cut() -> None:
    scheduler = Scheduler(requests_of((0, 25, 1), (0, 4, 1)), BatchingSpec(max_prefill_tokens=10), 1000)
    iterations, _ = run(scheduler)
    assert [iteration.shapes for iteration in iterations] == [((10, 0),), ((10, 10),), ((5, 20), (4, 0))]


def test_cache_memory_limits_the_batch() -> None:
    scheduler = Scheduler(requests_of((0, 60, 2), (0, 60, 2)), BatchingSpec(), 121)
    iterations, _ = run(scheduler)
    assert [len(iteration.chunks) for iteration in iterations] == [1, 1, 1, 1]
    roomy = Scheduler(requests_of((0, 60, 2), (0, 60, 2)), BatchingSpec(), 122)
    assert [len(iteration.chunks) for iteration in run(roomy)[0]] == [2, 2]


def test_idle_until_the_next_arrival() -> None:
    scheduler = Scheduler(requests_of((5_000, 1, 1)), BatchingSpec(), 1)
    assert scheduler.next_iteration(0) is None
    assert scheduler.next_arrival_fs() == 5_000
    assert not scheduler.finished
    run(scheduler)
    assert scheduler.next_arrival_fs() is None
    assert isinstance(scheduler.records[0], RequestRecord)


def test_requests_may_be_given_in_any_order() -> None:
    scheduler = Scheduler([Request(7, 9_000, 2, 1), Request(3, 0, 2, 1)], BatchingSpec(), 10)
    run(scheduler)
    assert [record.request_id for record in scheduler.records] == [7, 3]
    assert [record.first_scheduled_fs for record in scheduler.records] == [9_000, 0]


def test_a_request_that_can_never_fit_is_refused_with_the_lack() -> None:
    with pytest.raises(UserError, match=r"request 1 needs 1099 tokens of KV cache, 99 more than fit.*at most 1000"):
        Scheduler(requests_of((0, 10, 1), (0, 1000, 100)), BatchingSpec(), 1000)
    with pytest.raises(UserError, match="at least one of each"):
        Scheduler(requests_of((0, 0, 1)), BatchingSpec(), 1000)


def test_misuse_is_caught() -> None:
    scheduler = Scheduler(requests_of((0, 10, 2)), BatchingSpec(), 1000)
    iteration = scheduler.next_iteration(0)
    assert iteration is not None
    with pytest.raises(AssertionError):
        scheduler.next_iteration(0)
    with pytest.raises(AssertionError):
        scheduler.complete(iteration, -1)
    scheduler.complete(iteration, 5)
    with pytest.raises(AssertionError):
        scheduler.complete(iteration, 6)


def test_a_policy_may_let_requests_overtake(monkeypatch: pytest.MonkeyPatch) -> None:
    def shortest_prompt_first(queues: Queues) -> list[Chunk]:
        prompts = sorted(queues.waiting, key=lambda progress: progress.prompt_left)
        if prompts and len(queues.running) < queues.spec.max_batch and prompts[0].reservation <= queues.free_tokens:
            return [prompts[0].chunk(prompts[0].prompt_left)]
        return [progress.chunk(1) for progress in queues.running]

    monkeypatch.setitem(POLICIES, BatchingPolicy.PREFILL_FIRST, shortest_prompt_first)
    scheduler = Scheduler(requests_of((0, 9, 2), (0, 3, 2), (0, 6, 2)), BatchingSpec(max_batch=2), 1000)
    iterations, _ = run(scheduler)
    assert [chunk.request for iteration in iterations for chunk in iteration.chunks] == [1, 2, 1, 2, 0, 0]
