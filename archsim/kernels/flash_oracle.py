"""The oracle of the flash kernel: docs/flash_policy.md one tick at a time, with objects and lists.

It shares nothing with the kernel but the parameters: transfers move byte by byte, codewords and granules are counted
one by one through ECC and link, candidates are searched anew in every tick.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from archsim.kernels.flash_state import COUNT_WORDS, FlashCommand, FlashCount, FlashTiming, Kind, Striping


@dataclass(eq=False)
class OracleStream:
    """Requests in order, each (kind, page, first granule, granules), with their arrival ticks (None: at admission)."""

    requests: Sequence[tuple[Kind, int, int, int]]
    window: int
    arrivals: Sequence[int] | None = None
    admitted: int = 0
    open: int = 0
    done: dict[int, int] = field(default_factory=dict)
    """Completion tick by index of the request."""


@dataclass(eq=False)
class _Request:
    kind: Kind
    plane: int
    page: int
    first: int
    size: int
    age: int
    arrival: int
    stream: OracleStream
    index: int
    since: int = -1  # transferable
    buffer: int = -1


@dataclass(eq=False)
class _Buffer:
    contents: str = "empty"  # sensing, page, loading, data, programming
    page: int | None = None
    sensed: int = -1  # age of the sense
    requests: list[_Request] = field(default_factory=list)  # that have yet to leave

    @property
    def free(self) -> bool:
        return self.contents == "empty" or (self.contents == "page" and not self.requests)


@dataclass(eq=False)
class _Operation:
    """In a plane's line: a sense with all its requests, a program or an erase."""

    requests: list[_Request]
    loaded_into: int = -1  # buffer of a program
    loading: bool = False

    @property
    def lead(self) -> _Request:
        return self.requests[0]


@dataclass(eq=False)
class _Plane:
    buffers: list[_Buffer]
    line: deque[_Operation] = field(default_factory=deque)
    under_way: _Operation | None = None
    left: int = 0  # ticks of the operation under way


class FlashOracle:
    """One channel. `run` simulates ticks; `log`, `counts` and the streams' `done` say what happened."""

    def __init__(self, q: FlashTiming, stripes: Striping, streams: Sequence[OracleStream]) -> None:
        self.q = q
        self.stripes = stripes
        self.streams = list(streams)
        self.planes = [_Plane([_Buffer() for _ in range(q.buffers)]) for _ in range(q.planes)]
        self.groups = [self.planes[k : k + q.group_planes] for k in range(0, q.planes, q.group_planes)]
        self.counts = [0] * COUNT_WORDS
        self.senses = [0] * q.planes
        self.log: list[tuple[int, ...]] = []
        self.tick = 0
        self.turn = -1
        self.age = 0
        self.in_channel: list[_Request] = []
        self.transferable: list[_Request] = []
        self.command_left = 0
        self.on_bus: _Request | None = None
        self.bus_left = 0
        self.codewords_out: list[list[int]] = []  # [ticks to go in the ECC pipeline, granules wanted of it]
        self.link_queue: deque[_Request] = deque()  # in the order of the bus
        self.to_send: dict[int, int] = {}  # age -> granules not yet sent
        self.ready_granules = 0  # out of ECC and not yet sent, in the order of the link queue
        self.granule_left = 0

    @property
    def idle(self) -> bool:
        """Whether every request is complete."""
        return not self.in_channel and all(s.admitted == len(s.requests) for s in self.streams)

    def run(self, until: int) -> None:
        """Simulate up to tick `until`, or to the end of all requests."""
        while self.tick < until and not self.idle:
            self.step()

    def step(self) -> None:
        """One tick, in the policy's order."""
        self._end_operations()
        self._end_transfer()
        self._deliver()
        self._admit()
        self._start()
        self._load()
        self._grant_bus()
        self._count_down()
        self.tick += 1

    def _count(self, count: FlashCount, by: int = 1) -> None:
        self.counts[count] += by

    def _note(self, command: FlashCommand, request: _Request, buffer: int) -> None:
        self.log.append(
            (self.tick, command, request.plane, buffer, request.page, request.first, request.size, request.age)
        )

    def _end_operations(self) -> None:
        for plane in self.planes:
            operation = plane.under_way
            if operation is None or plane.left > 0:
                continue
            plane.under_way = None
            if operation.lead.kind is Kind.READ:
                [number] = [k for k, buffer in enumerate(plane.buffers) if buffer.contents == "sensing"]
                buffer = plane.buffers[number]
                buffer.contents = "page"
                buffer.requests = list(operation.requests)
                for request in operation.requests:
                    self._make_transferable(request, number)
            else:
                if operation.lead.kind is Kind.PROGRAM:
                    plane.buffers[operation.loaded_into] = _Buffer()
                self._complete(operation.lead)

    def _make_transferable(self, request: _Request, buffer: int) -> None:
        request.since = self.tick
        request.buffer = buffer
        self.transferable.append(request)

    def _end_transfer(self) -> None:
        request = self.on_bus
        if request is None or self.bus_left > 0:
            return
        self.on_bus = None
        plane = self.planes[request.plane]
        if request.kind is Kind.PROGRAM:
            plane.line[0].loading = False
            plane.buffers[request.buffer].contents = "data"
            return
        buffer = plane.buffers[request.buffer]
        buffer.requests.remove(request)
        if not buffer.requests and buffer.page is None:
            buffer.contents = "empty"

    def _deliver(self) -> None:
        """ECC and link: codewords that are out, then granules one after the other."""
        while self.codewords_out and self.codewords_out[0][0] == 0:
            self.ready_granules += self.codewords_out.pop(0)[1]
        if self.granule_left == 1:
            self.granule_left = 0
            self._sent()
        elif self.granule_left > 1:
            self.granule_left -= 1
        while self.granule_left == 0 and self.ready_granules > 0:
            self.ready_granules -= 1
            if self.q.link_ticks > 0:
                self.granule_left = self.q.link_ticks
            else:
                self._sent()

    def _sent(self) -> None:
        request = self.link_queue[0]
        self.to_send[request.age] -= 1
        if self.to_send[request.age] == 0:
            del self.to_send[request.age]
            self.link_queue.popleft()
            self._complete(request)

    def _complete(self, request: _Request) -> None:
        self.in_channel.remove(request)
        request.stream.open -= 1
        request.stream.done[request.index] = self.tick
        self._count(FlashCount.LATENCY, self.tick - request.arrival)
        if request.kind is Kind.READ:
            self._count(FlashCount.READS)
            self._count(FlashCount.GRANULES, request.size)
        elif request.kind is Kind.PROGRAM:
            self._count(FlashCount.WRITES)

    def _admit(self) -> None:
        while len(self.in_channel) < self.q.queue:
            n = len(self.streams)
            order = [(self.turn + 1 + k) % n for k in range(n)]
            chosen = next((k for k in order if self._may_enter(self.streams[k])), None)
            if chosen is None:
                return
            self.turn = chosen
            stream = self.streams[chosen]
            kind, linear, first, size = stream.requests[stream.admitted]
            position, rounds = linear % len(self.stripes.plane_of), linear // len(self.stripes.plane_of)
            plane = int(self.stripes.plane_of[position])
            page = int(self.stripes.offset_of[position]) + rounds * int(self.stripes.per_round[plane])
            arrival = self.tick if stream.arrivals is None else stream.arrivals[stream.admitted]
            request = _Request(kind, plane, page, first, size, self.age, arrival, stream, stream.admitted)
            self.age += 1
            stream.admitted += 1
            stream.open += 1
            self.in_channel.append(request)
            if not self._joins(request):
                self.planes[plane].line.append(_Operation([request]))

    def _may_enter(self, stream: OracleStream) -> bool:
        k = stream.admitted
        if k == len(stream.requests) or stream.open >= stream.window:
            return False
        if stream.arrivals is not None and stream.arrivals[k] > self.tick:
            return False
        return sum(request.size for request in self.in_channel) + stream.requests[k][3] <= self.q.staging

    def _joins(self, request: _Request) -> bool:
        if request.kind is not Kind.READ:
            return False
        plane = self.planes[request.plane]
        for operation in reversed(plane.line):
            if operation.lead.kind is not Kind.READ:
                return False
            if operation.lead.page == request.page:
                operation.requests.append(request)
                self._count(FlashCount.JOINED)
                return True
        for number, buffer in enumerate(plane.buffers):
            if buffer.page != request.page:
                continue
            if buffer.contents == "sensing":
                assert plane.under_way is not None
                plane.under_way.requests.append(request)
            elif buffer.contents == "page" and (buffer.requests or not plane.line):
                buffer.requests.append(request)
                self._make_transferable(request, number)
            else:
                continue
            self._count(FlashCount.JOINED)
            return True
        return False

    def _startable(self, group: list[_Plane]) -> list[_Plane]:
        if any(plane.under_way is not None for plane in group):
            return []
        loading = any(plane.line and plane.line[0].loading for plane in group)
        found = []
        for plane in group:
            if not plane.line:
                continue
            first = plane.line[0]
            if first.lead.kind is Kind.READ:
                ready = any(buffer.free for buffer in plane.buffers)
            elif first.lead.kind is Kind.PROGRAM:
                ready = first.loaded_into >= 0 and not first.loading and not loading
            else:
                ready = True
            if ready:
                found.append(plane)
        return found

    def _start(self) -> None:
        q = self.q
        while self.command_left == 0:
            under_way = sum(any(plane.under_way is not None for plane in group) for group in self.groups)
            candidates = [(plane.line[0].lead.age, group) for group in self.groups for plane in self._startable(group)]
            if under_way >= q.most_active or not candidates:
                return
            age, group = min(candidates, key=lambda candidate: candidate[0])
            ready = self._startable(group)
            [lead] = [plane.line[0].lead for plane in ready if plane.line[0].lead.age == age]
            ticks = q.command_ticks + {Kind.READ: q.t_read, Kind.PROGRAM: q.t_program, Kind.ERASE: q.t_erase}[lead.kind]
            self._count(FlashCount.OPERATIONS)
            for plane in ready:
                first = plane.line[0]
                if (first.lead.kind, first.lead.page) == (lead.kind, lead.page):
                    plane.line.popleft()
                    plane.under_way, plane.left = first, ticks
                    self._count(FlashCount.ARRAY_BUSY, ticks)
                    self._begin(plane, first)
            self.command_left = q.command_ticks

    def _begin(self, plane: _Plane, operation: _Operation) -> None:
        lead = operation.lead
        if lead.kind is Kind.READ:
            number = self._choose_buffer(plane)
            plane.buffers[number] = _Buffer("sensing", lead.page, lead.age)
            self.senses[lead.plane] += 1
            self._count(FlashCount.SENSES)
            self._note(FlashCommand.SENSE, lead, number)
            return
        for buffer in plane.buffers:
            buffer.page = None
            if buffer.contents == "page" and not buffer.requests:
                buffer.contents = "empty"
        if lead.kind is Kind.PROGRAM:
            plane.buffers[operation.loaded_into].contents = "programming"
            self._count(FlashCount.PROGRAMS)
            self._note(FlashCommand.PROGRAM, lead, operation.loaded_into)
        else:
            self._count(FlashCount.ERASES)
            self._note(FlashCommand.ERASE, lead, -1)

    def _choose_buffer(self, plane: _Plane) -> int:
        empty = [k for k, buffer in enumerate(plane.buffers) if buffer.contents == "empty"]
        if empty:
            return empty[0]
        drained = [k for k, buffer in enumerate(plane.buffers) if buffer.free]
        return min(drained, key=lambda k: plane.buffers[k].sensed)

    def _load(self) -> None:
        for plane in self.planes:
            if not plane.line or plane.line[0].lead.kind is not Kind.PROGRAM or plane.line[0].loaded_into >= 0:
                continue
            if any(buffer.free for buffer in plane.buffers):
                number = self._choose_buffer(plane)
                plane.buffers[number] = _Buffer("loading")
                plane.line[0].loaded_into = number
                plane.line[0].loading = True
                self._make_transferable(plane.line[0].lead, number)

    def _grant_bus(self) -> None:
        if self.on_bus is not None or not self.transferable:
            return
        request = min(self.transferable, key=lambda candidate: (candidate.since, candidate.age))
        self.transferable.remove(request)
        self.on_bus = request
        wanted = [granule // self.q.codeword for granule in range(request.first, request.first + request.size)]
        codewords = sorted(set(wanted))
        self.bus_left = len(codewords) * self.q.codeword_ticks
        self._count(FlashCount.CODEWORDS, len(codewords))
        self._count(FlashCount.BUS_BUSY, self.bus_left)
        if request.kind is Kind.PROGRAM:
            self._note(FlashCommand.LOAD, request, request.buffer)
            return
        self._note(FlashCommand.READ_OUT, request, request.buffer)
        self._count(FlashCount.LINK_BUSY, request.size * self.q.link_ticks)
        self.link_queue.append(request)
        self.to_send[request.age] = request.size
        for k, codeword in enumerate(codewords):
            ticks = (k + 1) * self.q.codeword_ticks + self.q.ecc_ticks
            self.codewords_out.append([ticks, wanted.count(codeword)])

    def _count_down(self) -> None:
        for plane in self.planes:
            plane.left = max(0, plane.left - 1)
        self.bus_left = max(0, self.bus_left - 1)
        self.command_left = max(0, self.command_left - 1)
        for codeword in self.codewords_out:
            codeword[0] -= 1


def oracle_counts(oracle: FlashOracle) -> np.ndarray:
    """The oracle's counts as the kernel has them: int64[COUNT_WORDS]."""
    return np.array(oracle.counts, np.int64)
