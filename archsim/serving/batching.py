"""Iteration-level continuous batching, the plain version, as a state machine without a clock of its own.

    scheduler = Scheduler(requests, BatchingSpec(), kv_token_capacity)
    while not scheduler.finished:
        iteration = scheduler.next_iteration(now_fs)
        if iteration is None: now_fs = scheduler.next_arrival_fs()      # nothing to do until then
        else: now_fs += duration_of(iteration.shapes); scheduler.complete(iteration, now_fs)

A policy is one function from what waits and runs to the chunks of the next iteration, and one name in
`BatchingPolicy`.
Cache memory is reserved for a request's whole life when it is admitted, so nothing is ever evicted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from archsim.config.errors import UserError
from archsim.experiment_spec import BatchingPolicy, BatchingSpec
from archsim.records import RequestRecord
from archsim.workload.requests import Request


class Chunk(NamedTuple):
    """`new_tokens` of request number `request` (its place in the list), on top of `context_before` cached ones."""

    request: int
    new_tokens: int
    context_before: int


@dataclass(frozen=True, slots=True)
class Iteration:
    """One forward pass over `chunks`, from `start_fs` on."""

    index: int
    start_fs: int
    phase: str
    chunks: tuple[Chunk, ...]

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(new tokens, context before) of each sequence, as `lower_iteration` takes them."""
        return tuple((chunk.new_tokens, chunk.context_before) for chunk in self.chunks)

    @property
    def tokens(self) -> int:
        """New tokens of all sequences."""
        return sum(chunk.new_tokens for chunk in self.chunks)


@dataclass(slots=True)
class Progress:
    """How far a request is: `cached` tokens in memory, `generated` tokens handed out."""

    index: int
    request: Request
    cached: int = 0
    generated: int = 0
    energy_pj: float = 0.0
    first_scheduled_fs: int = -1
    first_token_fs: int = -1

    @property
    def reservation(self) -> int:
        """Tokens of cache at the end of its life: all but the last generated one, which nothing attends to."""
        return self.request.context_tokens + self.request.generated_tokens - 1

    @property
    def prompt_left(self) -> int:
        """Prompt tokens not yet computed."""
        return max(0, self.request.context_tokens - self.cached)

    @property
    def finished(self) -> bool:
        return self.generated == self.request.generated_tokens

    def chunk(self, new_tokens: int) -> Chunk:
        return Chunk(self.index, new_tokens, self.cached)


@dataclass(frozen=True, slots=True)
class Queues:
    """What a policy sees, in order of arrival: `waiting` (not admitted) and `running`, and the room that is left.

    `waiting` is the scheduler's own queue: a policy only reads it."""

    waiting: Sequence[Progress]
    running: Sequence[Progress]
    free_tokens: int
    spec: BatchingSpec


def prefill_first(queues: Queues) -> list[Chunk]:
    """Prompts in order of arrival as long as they fit; where there is none, a token for each running sequence."""
    return _prompts(queues) or [progress.chunk(1) for progress in queues.running]


def _prompts(queues: Queues) -> list[Chunk]:
    budget, free = queues.spec.max_prefill_tokens, queues.free_tokens
    chunks: list[Chunk] = []
    for progress in queues.running:
        if progress.prompt_left and budget:  # the rest of a prompt longer than an iteration takes
            chunks.append(progress.chunk(min(progress.prompt_left, budget)))
            budget -= chunks[-1].new_tokens
    seats = queues.spec.max_batch - len(queues.running)
    for progress in queues.waiting:
        too_long = bool(chunks) and progress.prompt_left > budget  # the first of an iteration is cut instead
        if seats == 0 or progress.reservation > free or too_long:
            break  # first come, first served: nobody overtakes
        chunks.append(progress.chunk(min(progress.prompt_left, budget)))
        budget -= chunks[-1].new_tokens
        free -= progress.reservation
        seats -= 1
    return chunks


POLICIES: dict[BatchingPolicy, Callable[[Queues], list[Chunk]]] = {BatchingPolicy.PREFILL_FIRST: prefill_first}


class Scheduler:
    """The requests of a trace on one system whose cache holds `kv_token_capacity` tokens.

    Raises UserError for a request that can never fit, saying by how much."""

    def __init__(self, requests: Sequence[Request], spec: BatchingSpec, kv_token_capacity: int) -> None:
        self.spec = spec
        self.kv_token_capacity = kv_token_capacity
        everyone = [Progress(index, request) for index, request in enumerate(requests)]
        for progress in everyone:
            _check_fits(progress, kv_token_capacity)
        self._coming = deque(sorted(everyone, key=lambda progress: (progress.request.arrival_fs, progress.index)))
        self._waiting: deque[Progress] = deque()
        self._running: list[Progress] = []
        self._records: dict[int, RequestRecord] = {}
        self._reserved = 0
        self._iterations = 0
        self._pending: Iteration | None = None
        self._policy = POLICIES[spec.policy]
        self._count = len(everyone)

    @property
    def finished(self) -> bool:
        """Whether every request has all its tokens."""
        return len(self._records) == self._count

    @property
    def records(self) -> tuple[RequestRecord, ...]:
        """The finished requests, in the order they were given."""
        return tuple(self._records[index] for index in sorted(self._records))

    @property
    def reserved_tokens(self) -> int:
        """Cache tokens reserved by the running sequences."""
        return self._reserved

    def next_arrival_fs(self) -> int | None:
        """When the next request arrives that no iteration has seen yet; None after the last."""
        return self._coming[0].request.arrival_fs if self._coming else None

    def next_iteration(self, now_fs: int) -> Iteration | None:
        """What runs from `now_fs` on; None if nothing can before the next arrival (or ever, if `finished`)."""
        assert self._pending is None, "an iteration is still running"
        while self._coming and self._coming[0].request.arrival_fs <= now_fs:
            self._waiting.append(self._coming.popleft())
        free = self.kv_token_capacity - self._reserved
        chunks = self._policy(Queues(self._waiting, self._running, free, self.spec))
        if not chunks:
            # Every request fits an idle system, so a policy that leaves one waiting there would wait for ever.
            assert not self._running and not self._waiting, f"{self.spec.policy} chose nothing although something waits"
            return None
        self._admit(chunks, now_fs)
        self._pending = Iteration(self._iterations, now_fs, self._phase(chunks), tuple(chunks))
        self._iterations += 1
        return self._pending

    def complete(self, iteration: Iteration, now_fs: int, energy_pj: float = 0.0) -> None:
        """The iteration's tokens are there at `now_fs`. `energy_pj` (all devices) is shared by new tokens."""
        assert iteration is self._pending, "this iteration is not the one that runs"
        assert now_fs >= iteration.start_fs, "an iteration can't end before it starts"
        self._pending = None
        by_index = {progress.index: progress for progress in self._running}
        tokens = iteration.tokens
        for chunk in iteration.chunks:
            progress = by_index[chunk.request]
            progress.cached += chunk.new_tokens
            progress.energy_pj += energy_pj * chunk.new_tokens / tokens
            if not progress.prompt_left:
                progress.generated += 1
                progress.first_token_fs = now_fs if progress.generated == 1 else progress.first_token_fs
            if progress.finished:
                self._records[progress.index] = _record(progress, now_fs)
                self._reserved -= progress.reservation
        self._running = [progress for progress in self._running if not progress.finished]
        self._check()

    def _admit(self, chunks: Sequence[Chunk], now_fs: int) -> None:
        chosen = {chunk.request: chunk for chunk in chunks}
        assert len(chosen) == len(chunks), "a request stands twice in an iteration"
        admitted = self._taken_from_waiting(chosen.keys() - {progress.index for progress in self._running})
        for progress in admitted:
            progress.first_scheduled_fs = now_fs
            self._reserved += progress.reservation
        self._running += admitted
        by_index = {progress.index: progress for progress in self._running}
        for chunk in chunks:
            progress = by_index[chunk.request]
            assert chunk.context_before == progress.cached, "a chunk that doesn't follow the cached tokens"
            assert 1 <= chunk.new_tokens <= (progress.prompt_left or 1), "a chunk of a wrong number of tokens"
        self._check()

    def _taken_from_waiting(self, chosen: Set[int]) -> list[Progress]:
        admitted = []
        while self._waiting and self._waiting[0].index in chosen:
            admitted.append(self._waiting.popleft())
        if len(admitted) < len(chosen):  # a policy let someone overtake: the rest stands further back
            admitted += [progress for progress in self._waiting if progress.index in chosen]
            self._waiting = deque(progress for progress in self._waiting if progress.index not in chosen)
        return admitted

    def _phase(self, chunks: Sequence[Chunk]) -> str:
        by_index = {progress.index: progress for progress in self._running}
        prompts = sum(by_index[chunk.request].prompt_left > 0 for chunk in chunks)
        return "prefill" if prompts == len(chunks) else "mixed" if prompts else "decode"

    def _check(self) -> None:
        """Conservation: nobody is lost, and the cache holds what is reserved."""
        waiting = len(self._coming) + len(self._waiting)
        assert waiting + len(self._running) + len(self._records) == self._count, "a request was lost"
        assert self._reserved == sum(progress.reservation for progress in self._running), "reservations don't add up"
        assert 0 <= self._reserved <= self.kv_token_capacity, "more cache is reserved than there is"
        assert len(self._running) <= self.spec.max_batch, "more sequences run than the limit"


def _check_fits(progress: Progress, capacity: int) -> None:
    request = progress.request
    if request.context_tokens < 1 or request.generated_tokens < 1:
        raise UserError(
            f"request {request.request_id} has {request.context_tokens} prompt tokens and "
            f"{request.generated_tokens} generated ones",
            expected="at least one of each",
        )
    if progress.reservation > capacity:
        raise UserError(
            f"request {request.request_id} needs {progress.reservation} tokens of KV cache, "
            f"{progress.reservation - max(0, capacity)} more than fit",
            expected=f"at most {max(0, capacity)} tokens, or more memory, more devices, or a smaller KV format",
        )


def _record(progress: Progress, now_fs: int) -> RequestRecord:
    request = progress.request
    assert progress.cached == progress.reservation, "tokens don't add up"
    return RequestRecord(
        request_id=request.request_id,
        arrival_fs=request.arrival_fs,
        first_scheduled_fs=progress.first_scheduled_fs,
        first_token_fs=progress.first_token_fs,
        finish_fs=now_fs,
        context_tokens=request.context_tokens,
        generated_tokens=progress.generated,
        energy_pj=progress.energy_pj,
    )
