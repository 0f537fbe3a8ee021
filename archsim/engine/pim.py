"""Operators on processing in memory: what of a device's work is offloaded, and what it takes there.

An offloaded operator is the program of its family on all channels of the device's PIM, simulated command by command;
equal operators are simulated once. docs/pim_engine.md says what is simulated and numbers what is simplified.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from archsim.compute.arithmetic import most_that_fits
from archsim.compute.vector import vector_fs
from archsim.config.errors import UserError
from archsim.config.units import format_quantity
from archsim.engine.pim_vectors import VectorWork, vector_work
from archsim.memory.pim_device import HEAD_FAMILIES, PimDevice, PimResult
from archsim.memory.pim_memory import PimMemorySpec
from archsim.memory.pim_offload import STORED, Unit, is_decode_attention, place
from archsim.memory.pim_programs import passes_of
from archsim.records import Access, GemmShape, Operator, OperatorKind, PimCounts, TensorClass
from archsim.system import DeviceSpec
from archsim.workload.sub_batches import SECOND

FS_PER_SECOND = 10**15
FEED_FORWARD = ("up_proj", "gate_up_proj", "down_proj")
MOST_SHARED_TOKENS = 256
"""Products of more rows are not shared out: the device reads weights once for all of them, PIM for a few at a time."""
KEPT = 4096


@dataclass(frozen=True)
class PimPart:
    """What an operator takes on PIM: sending its inputs, the units' work, fetching results, and what the host adds
    (softmax where PIM has none). `bound_fs` is its bytes at the units' full rate. `steps` are heads that can follow
    each other in a pipeline."""

    send_fs: int
    busy_fs: int
    receive_fs: int
    host_fs: int
    bound_fs: int
    counts: PimCounts
    steps: int = 1
    host_flops: int = 0

    @property
    def total_fs(self) -> int:
        """One after the other."""
        return self.send_fs + self.busy_fs + self.receive_fs + self.host_fs


@dataclass(frozen=True)
class _Run:
    """Some equal pieces of work, one after the other, and the bytes that their units have to read at least."""

    key: tuple[object, ...]
    times: int
    asked_bytes: int
    work: Callable[[], PimResult]


class PimUnit:
    """The PIM of one device. Without `cycle`, operators take their bounds and nothing is simulated."""

    def __init__(self, device: DeviceSpec, *, cycle: bool = True, shortcuts: bool = True) -> None:
        assert device.pim is not None
        self.spec: PimMemorySpec = device.pim
        self.used_bytes = 0
        self._host = device
        self._device = PimDevice(self.spec.whole, fast_forward=shortcuts)
        self._cycle = cycle
        self._results: dict[tuple[object, ...], PimResult] = {}
        self._placed: dict[str, int] = {}
        self._experts: Mapping[str, int] = {}
        self._has_cache = self.spec.separate and self.spec.holds(TensorClass.KV, expert=False)

    # ------------------------------------------------------------ what lies where

    @property
    def free_bytes(self) -> int:
        """What is left of a separate PIM memory."""
        return (self.spec.capacity or 0) - self.used_bytes

    def name_experts(self, experts_of: Mapping[str, int]) -> None:
        """Tell which weights are stacks of experts. Before they are placed."""
        self._experts = experts_of

    def reserve(self, accesses: Iterable[Access]) -> list[Access]:
        """Give tensors their place in a separate PIM memory; what the main memory has to hold of them.

        Weights are in both: the device reads them where a batch is too large for PIM. Raises UserError if they don't
        fit."""
        kept = []
        for access in accesses:
            here = self._holds(access)
            if here:
                self._place(access.tensor, access.bytes)
            if not here or access.tensor_class is not TensorClass.KV:
                kept.append(access)
        self._check_capacity()
        return kept

    def _holds(self, access: Access) -> bool:
        """Whether a separate PIM memory has a tensor, or a copy of it."""
        if not self.spec.separate:
            return False
        shared = self.spec.overlap.feed_forward and is_feed_forward(access.tensor.removesuffix(".weight"))
        return shared or self.spec.holds(access.tensor_class, expert=access.tensor in self._experts)

    def _place(self, tensor: str, size_bytes: int) -> None:
        if tensor not in self._placed:
            self._placed[tensor] = size_bytes
            self.used_bytes += size_bytes

    def _check_capacity(self) -> None:
        if self.spec.separate and self.free_bytes < 0:
            raise UserError(
                f"what lies in PIM memory needs {_bytes(self.used_bytes)} on each device, which has "
                f"{_bytes(self.spec.capacity or 0)} there: {_bytes(-self.free_bytes)} too much",
                expected="more stacks, a higher tensor_parallel, or fewer or shorter sequences",
            )

    # ------------------------------------------------------------ operators

    def offloads(self, operator: Operator) -> bool:
        """Whether PIM does all of an operator. Raises UserError where the device would have to, but can't reach it."""
        if place(operator, self.spec.offload) is Unit.PIM or self._vector(operator) is not None:
            return True
        if self._has_cache and is_decode_attention(operator):
            raise UserError(
                f"the policy {self.spec.offload.policy} leaves {operator.name} to the device, but its KV cache lies in "
                "PIM memory",
                expected="pim.offload with a higher most_op_per_byte, policy: attention, or pim without `capacity`",
            )
        return False

    def part_of(self, operator: Operator) -> PimPart:
        """What an offloaded operator takes. Raises UserError for one that the device can't lay out."""
        vector = self._vector(operator)
        if vector is not None:
            return self._part(operator, [self._vector_run(vector)], vector.host_flops, 1)
        runs = self._attention(operator) if operator.attention is not None else self._products(operator)
        in_memory_softmax = operator.attention is not None and self.spec.technology.family in HEAD_FAMILIES
        host_flops = 0 if in_memory_softmax else operator.vector_flops
        steps = operator.attention.kv_heads if operator.attention is not None else 1
        return self._part(operator, runs, host_flops, steps)

    def append(self, operator: Operator) -> PimPart | None:
        """New keys and values on their way to a separate PIM memory; None if the main memory takes them."""
        if operator.kind is not OperatorKind.KV_APPEND or not self._has_cache:
            return None
        return self._part(operator, [], 0, 1, replace_sent=operator.write_bytes)

    def without_cache(self, operator: Operator) -> Operator:
        """Attention over new tokens with its keys and values as they are before they go to a separate PIM memory."""
        if not self._has_cache or not any(access.tensor_class is TensorClass.KV for access in operator.reads):
            return operator
        reads = tuple(
            replace(access, tensor="kv", tensor_class=TensorClass.ACTIVATION)
            if access.tensor_class is TensorClass.KV
            else access
            for access in operator.reads
        )
        return replace(operator, reads=reads)

    def shared(self, operator: Operator, device_fs: int) -> tuple[Operator, PimPart] | None:
        """A feed-forward product cut by outputs, so that the device, which would take `device_fs` for all of it, and
        PIM are through together: the device's part and PIM's. None if there is nothing to share."""
        gemm = operator.gemm
        if not self.spec.overlap.feed_forward or gemm is None or gemm.count > 1 or gemm.m > MOST_SHARED_TOKENS:
            return None
        if not is_feed_forward(operator.name.removesuffix(SECOND)):
            return None
        granule = self.spec.whole.organisation.channels

        def fits(rounds: int) -> bool:
            """Whether PIM is through with so many outputs of each channel before the device is with the others."""
            outputs = rounds * granule
            theirs_fs = device_fs * (gemm.n - outputs) // gemm.n
            return outputs < gemm.n and self._share(_cut(operator, outputs)).total_fs <= theirs_fs

        least = most_that_fits(fits)
        if least == 0:
            return None
        theirs = _cut(operator, least * granule)
        return _cut(operator, gemm.n - least * granule), self._share(theirs)

    def _share(self, operator: Operator) -> PimPart:
        return self._part(operator, self._products(operator), 0, 1)

    # ------------------------------------------------------------ runs

    def _attention(self, operator: Operator) -> list[_Run]:
        """Sequences of equal context together, then those of the next length."""
        shape = operator.attention
        assert shape is not None
        units = self.spec.technology.units
        if shape.head_dim != shape.value_dim:
            raise UserError(
                f"{operator.name} has keys of {shape.head_dim} and values of {shape.value_dim} elements; PIM lays out "
                "keys and values of equal size",
                expected="a model without latent attention, or an offload policy that leaves attention to the device",
            )
        cache_bytes = sum(a.bytes for a in operator.reads if a.tensor_class is TensorClass.KV)
        elements = 2 * sum(shape.context_tokens) * shape.kv_heads * shape.head_dim
        self._check_format(operator.name, "KV cache", cache_bytes, elements)
        queries = shape.query_heads // shape.kv_heads
        passes, _ = passes_of(self.spec.technology, queries)
        runs = []
        for context, sequences in sorted(Counter(shape.context_tokens).items()):
            heads = sequences * shape.kv_heads
            sizes = (heads * queries, context, shape.head_dim, heads)
            asked_bytes = passes * 2 * context * heads * shape.head_dim * units.element_bytes
            work = self._attention_work(*sizes)
            runs.append(_Run(("attention", *sizes), 1, asked_bytes, work))
        return runs

    def _attention_work(self, heads: int, context: int, head_dim: int, kv_heads: int) -> Callable[[], PimResult]:
        return lambda: self._device.attention(heads, context, head_dim, kv_heads=kv_heads)

    def _products(self, operator: Operator) -> list[_Run]:
        """One matrix after the other, each over all channels."""
        gemm = operator.gemm
        assert gemm is not None
        elements = gemm.n * gemm.k * gemm.count
        self._check_format(operator.name, "weights", _weight(operator).bytes, elements)
        passes, _ = passes_of(self.spec.technology, gemm.m)
        asked_bytes = passes * gemm.n * gemm.k * self.spec.technology.units.element_bytes
        runs = [
            _Run(("gemv", *sizes), gemm.count, asked_bytes, self._product_work(*sizes)) for sizes in self._layouts(gemm)
        ]
        return [min(runs, key=lambda run: self._result(run).ticks)] if self._cycle else runs[:1]

    def _layouts(self, gemm: GemmShape) -> list[tuple[int, int, int, int]]:
        """(outputs, inputs, vectors, channels that share the inputs) of the layouts to choose from: a compiler would
        take the one with the fewest clocks."""
        splits = [1]
        if self.spec.technology.family in HEAD_FAMILIES:
            splits.append(self.spec.technology.organisation.channels)
        return [(gemm.n, gemm.k, gemm.m, split) for split in splits]

    def _product_work(self, outputs: int, inputs: int, vectors: int, splits: int) -> Callable[[], PimResult]:
        return lambda: self._device.gemv(outputs, inputs, tokens=vectors, input_splits=splits)

    def _vector(self, operator: Operator) -> VectorWork | None:
        """What banks do of an elementwise operator, by the technology's mapping."""
        return vector_work(operator, self.spec.whole)

    def _vector_run(self, work: VectorWork) -> _Run:
        return _Run((work.kind, work.elements), 1, 0, lambda: self._device.vector(work.kind, work.elements))

    def _check_format(self, name: str, what: str, size_bytes: int, elements: int) -> None:
        element_bytes = self.spec.technology.units.element_bytes
        if size_bytes != elements * element_bytes:
            raise UserError(
                f"{name}: {8 * size_bytes / elements:.3g} bits an element of the {what}, the units of "
                f"{self.spec.technology.name} multiply {8 * element_bytes}",
                expected=f"workload.precision with {8 * element_bytes} bits for {what}, or less offloaded",
            )

    def _part(
        self, operator: Operator, runs: Sequence[_Run], host_flops: int, steps: int, replace_sent: int | None = None
    ) -> PimPart:
        """Work on PIM with the way there and back, and what the host adds to it."""
        host_fs = vector_fs(host_flops, self._host.vector) if host_flops else 0
        sent = _activation_bytes(operator.reads) if replace_sent is None else replace_sent
        received = _activation_bytes(operator.writes)
        counts = PimCounts(operators=1 if runs else 0, host_bytes=sent + received)
        peak = self.spec.peak_bytes_per_second
        bound_fs = sum(run.times * run.asked_bytes for run in runs) * FS_PER_SECOND * peak.denominator // peak.numerator
        for run in runs:
            self._count(counts, run)
        assert counts.busy_fs >= bound_fs, f"{operator.name} is faster than its bytes at the full rate of PIM's units"
        link = self.spec.link
        if link is None:
            send_fs, receive_fs = 0, self._host.buffer.latency + self._host.buffer.miss_latency if received else 0
        else:
            latency_fs = link.latency if self._cycle else 0
            send_fs = link.wire_fs(sent) + latency_fs if sent else 0
            receive_fs = link.wire_fs(received) + latency_fs if received else 0
            counts.link_bytes = link.wire_bytes(sent) + link.wire_bytes(received)
            bound_fs = max(bound_fs, link.wire_fs(sent), link.wire_fs(received))
        if not self._cycle:
            host_fs, send_fs, receive_fs, counts.busy_fs = 0, 0, 0, bound_fs
        return PimPart(send_fs, counts.busy_fs, receive_fs, host_fs, bound_fs, counts, steps, host_flops)

    def _result(self, run: _Run) -> PimResult:
        """Simulated once for equal work."""
        result = self._results.get(run.key)
        if result is None:
            if len(self._results) >= KEPT:
                self._results.clear()
            result = self._results[run.key] = run.work()
        return result

    def _count(self, counts: PimCounts, run: _Run) -> None:
        if not self._cycle:
            peak = self.spec.peak_bytes_per_second
            counts.read_bytes += run.times * run.asked_bytes
            counts.busy_fs += run.times * run.asked_bytes * FS_PER_SECOND * peak.denominator // peak.numerator + 1
            return
        result = self._result(run)
        events = result.events
        stall_fs = result.refresh_stall_ticks * result.clock_fs.numerator // result.clock_fs.denominator
        counts.add(
            PimCounts(
                busy_fs=run.times * result.duration_fs,
                activates=run.times * events.activates,
                read_bytes=run.times * events.read_bytes,
                padding_bytes=run.times * result.padding_bytes,
                pin_bytes=run.times * events.pin_bytes,
                macs=run.times * events.macs,
                macs_asked=run.times * result.macs,
                refresh_stall_fs=run.times * stall_fs,
                commands={name: run.times * count for name, count in result.counts.items() if count},
            )
        )


def is_feed_forward(name: str) -> bool:
    """Whether a product is one of the feed-forward network, experts left out."""
    return ".experts." not in name and name.rpartition(".")[2] in FEED_FORWARD


def _weight(operator: Operator) -> Access:
    """The matrix that a product reads (its bias is smaller)."""
    weights = [access for access in operator.reads if access.tensor_class in STORED]
    return max(weights, key=lambda access: access.bytes)


def _cut(operator: Operator, outputs: int) -> Operator:
    """The product of some of the outputs."""
    gemm = operator.gemm
    assert gemm is not None

    def part(access: Access) -> Access:
        return replace(access, bytes=access.bytes * outputs // gemm.n)

    return replace(
        operator,
        matrix_flops=operator.matrix_flops * outputs // gemm.n,
        vector_flops=operator.vector_flops * outputs // gemm.n,
        gemm=replace(gemm, n=outputs),
        reads=tuple(a if a.tensor_class is TensorClass.ACTIVATION else part(a) for a in operator.reads),
        writes=tuple(part(access) for access in operator.writes),
    )


def _activation_bytes(accesses: Sequence[Access]) -> int:
    return sum(access.bytes for access in accesses if access.tensor_class is TensorClass.ACTIVATION)


def _bytes(count: int) -> str:
    return format_quantity(count, "bytes")
