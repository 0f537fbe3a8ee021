"""What flows between the stages: operators in, records out. Plain dataclasses, no behaviour beyond sums.

Units are in the names: `_bytes`, `_fs` (femtoseconds, integers), `_pj` (picojoules), `_flops`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class TensorClass(StrEnum):
    """What a tensor holds; precision and placement are chosen per class."""

    WEIGHT = "weight"
    KV = "kv"
    KV_SHARED = "kv_shared"  # of a prefix that all sequences share, stored once
    ACTIVATION = "activation"
    EMBEDDING = "embedding"


class OperatorKind(StrEnum):
    """What the hardware does for an operator; the engine picks a unit by it."""

    EMBEDDING = "embedding"
    NORM = "norm"
    GEMM = "gemm"
    ROPE = "rope"
    PREFILL_ATTENTION = "prefill_attention"
    DECODE_ATTENTION = "decode_attention"
    PREFIX_ATTENTION = "prefix_attention"  # of a whole batch over a prefix that its sequences share
    ATTENTION_MERGE = "attention_merge"  # of attention over parts of a context
    ACTIVATION = "activation"
    KV_APPEND = "kv_append"
    ROUTER = "router"
    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    HOP = "hop"  # to the next chip of a row


@dataclass(frozen=True, slots=True)
class Access:
    """One contiguous tensor an operator reads or writes on one device.

    `tensor` names the storage: the same name in two operators is the same memory
    ("layers[3].qkv_proj.weight", "layers[3].kv", "layers[3].hidden"). `bytes` is what this
    operator moves of it on ONE device, scales of block formats included, all `passes` together:
    a prefix may be read once for each sequence.
    """

    tensor: str
    tensor_class: TensorClass
    bytes: int
    passes: int = 1


@dataclass(frozen=True, slots=True)
class GemmShape:
    """`count` independent products of (m x k) by (k x n) on one device.

    An expert layer is `count` experts of `m` rows each (the mean load, rounded up)."""

    m: int
    n: int
    k: int
    count: int = 1

    @property
    def flops(self) -> int:
        return 2 * self.m * self.n * self.k * self.count


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Attention of one device's heads over a batch.

    `context_tokens` and `query_tokens` have one entry per sequence: the keys each sequence's
    queries see at the end (cache plus new), and how many queries it brings (1 in decode)."""

    query_heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    query_tokens: tuple[int, ...]
    context_tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Operator:
    """One kernel launch's worth of work on ONE device of a tensor-parallel group. A collective is among
    `collective_devices` of the group, 0 for all."""

    name: str
    kind: OperatorKind
    layer: int
    matrix_flops: int = 0
    vector_flops: int = 0
    compute_format: str = "bf16"
    gemm: GemmShape | None = None
    attention: AttentionShape | None = None
    reads: tuple[Access, ...] = ()
    writes: tuple[Access, ...] = ()
    collective_bytes: int = 0
    collective_devices: int = 0

    @property
    def read_bytes(self) -> int:
        return sum(access.bytes for access in self.reads)

    @property
    def write_bytes(self) -> int:
        return sum(access.bytes for access in self.writes)


@dataclass(frozen=True, slots=True)
class OperatorTrace:
    """A phase (one forward pass) as the operators one device runs, in order.

    `devices` is the size of the tensor-parallel group, whose devices run the same trace."""

    phase: str
    operators: tuple[Operator, ...]
    devices: int
    tokens: int
    sequences: int


@dataclass(slots=True)
class TierCounts:
    """Events of one tier beside the main memory, all int. Bytes are whole pages or bursts, `link_bytes` on the wire;
    the commands are those of DRAM, which flash leaves at 0."""

    read_bytes: int = 0
    write_bytes: int = 0
    link_bytes: int = 0
    activates: int = 0
    reads: int = 0
    writes: int = 0
    refreshes_all_bank: int = 0
    refreshes_per_bank: int = 0

    def add(self, other: TierCounts) -> None:
        """Accumulate `other` into self, field by field."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class TierUse:
    """What a phase did with one tier beside the main memory. Bytes, sizes and the ceiling (bytes per second that no
    read exceeds) are of one device; energies, the least and the most that sources allow among them, of all."""

    name: str
    memory: str
    capacity_bytes: int
    placed_bytes: int
    ceiling_bytes_per_second: int
    read_bytes: int
    write_bytes: int
    energy_low_pj: float
    energy_pj: float
    energy_high_pj: float


@dataclass(slots=True)
class PimCounts:
    """Events of processing in memory, of all channels of one device, all int; `commands` alone are those of one
    channel, the busiest. `macs` are those on padding too, `macs_asked` without; `busy_fs` is how long units worked.

    `host_bytes` are inputs and results as lowered, and new keys and values that go to a memory of their own;
    `pin_bytes` and `link_bytes` are what passes pins and link of them."""

    operators: int = 0
    busy_fs: int = 0
    activates: int = 0
    read_bytes: int = 0
    padding_bytes: int = 0
    pin_bytes: int = 0
    host_bytes: int = 0
    link_bytes: int = 0
    macs: int = 0
    macs_asked: int = 0
    refresh_stall_fs: int = 0
    commands: dict[str, int] = field(default_factory=dict)

    def add(self, other: PimCounts) -> None:
        """Accumulate `other` into self, field by field."""
        for name in self.__slots__:
            if name == "commands":
                for command, count in other.commands.items():
                    self.commands[command] = self.commands.get(command, 0) + count
            else:
                setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class PimUse:
    """What a phase did with processing in memory, of one device. `placed_bytes` and `capacity_bytes` are 0 if the main
    memory itself computes; the ceiling is what the units read with multiply-accumulates back to back."""

    memory: str
    policy: str
    capacity_bytes: int
    placed_bytes: int
    ceiling_bytes_per_second: int
    counts: PimCounts


@dataclass(slots=True)
class Counts:
    """Events of one device, all int. Kernels count events, never joules; energy.py multiplies.

    DRAM bus ticks tile the elapsed time of every pseudo-channel without a gap:
    busy + refresh + turnaround + row + idle = elapsed."""

    dram_activates: int = 0
    dram_precharges: int = 0
    dram_reads: int = 0
    dram_writes: int = 0
    dram_refreshes_all_bank: int = 0
    dram_refreshes_per_bank: int = 0
    dram_row_hits: int = 0
    dram_row_misses: int = 0
    dram_row_conflicts: int = 0
    dram_read_bytes: int = 0
    dram_write_bytes: int = 0
    dram_padding_bytes: int = 0
    dram_latency_ticks: int = 0
    dram_busy_ticks: int = 0
    dram_refresh_ticks: int = 0
    dram_turnaround_ticks: int = 0
    dram_row_ticks: int = 0
    dram_idle_ticks: int = 0
    buffer_read_bytes: int = 0
    buffer_write_bytes: int = 0
    noc_bytes: int = 0
    link_bytes: int = 0
    matrix_macs: dict[str, int] = field(default_factory=dict)
    vector_flops: int = 0
    tiers: dict[str, TierCounts] = field(default_factory=dict)
    pim: PimCounts | None = None

    def add(self, other: Counts) -> None:
        """Accumulate `other` into self, field by field."""
        for name in self.__slots__:
            if name == "matrix_macs":
                for fmt, macs in other.matrix_macs.items():
                    self.matrix_macs[fmt] = self.matrix_macs.get(fmt, 0) + macs
            elif name == "tiers":
                for tier, counts in other.tiers.items():
                    self.tiers.setdefault(tier, TierCounts()).add(counts)
            elif name == "pim":
                if other.pim is not None:
                    self.pim = self.pim or PimCounts()
                    self.pim.add(other.pim)
            else:
                setattr(self, name, getattr(self, name) + getattr(other, name))


CAUSES = ("launch", "compute", "transfer", "row", "turnaround", "refresh", "noc", "pim", "tier", "fill", "link")
"""Named causes whose times tile an operator's duration: kernel launch; waiting on the matrix or
vector engine; data bursts on the HBM pins; row activation and bank conflicts; bus turnaround;
refresh; waiting on a simulated on-chip network; processing in memory, with the way there and back;
data of another memory tier; memory pipeline fill and drain; collective communication."""


@dataclass(slots=True)
class OperatorRecord:
    """One executed operator. sum(cause_fs.values()) == end_fs - start_fs, exactly."""

    name: str
    kind: OperatorKind
    layer: int
    phase: str
    iteration: int
    start_fs: int
    end_fs: int
    bound: str
    roofline_fs: int
    cause_fs: dict[str, int]
    matrix_flops: int
    vector_flops: int
    counts: Counts

    @property
    def duration_fs(self) -> int:
        return self.end_fs - self.start_fs


@dataclass(slots=True)
class RequestRecord:
    """One served request: when it came, when tokens came out, what it cost (all devices)."""

    request_id: int
    arrival_fs: int
    first_scheduled_fs: int
    first_token_fs: int
    finish_fs: int
    context_tokens: int
    generated_tokens: int
    energy_pj: float

    @property
    def ttft_fs(self) -> int:
        """Time to first token."""
        return self.first_token_fs - self.arrival_fs

    @property
    def tpot_fs(self) -> int:
        """Mean time per output token after the first; 0 for one-token requests."""
        if self.generated_tokens <= 1:
            return 0
        return (self.finish_fs - self.first_token_fs) // (self.generated_tokens - 1)


@dataclass(frozen=True, slots=True)
class Span:
    """A box on the timeline: component "GPU[0].HBM", "GPU[0].Matrix", "GPU[0].Link", ..."""

    component: str
    name: str
    start_fs: int
    end_fs: int


@dataclass(frozen=True, slots=True)
class BandwidthSample:
    """HBM bytes moved by one device in [start_fs, end_fs)."""

    start_fs: int
    end_fs: int
    read_bytes: int
    write_bytes: int
