"""The memory controller of one channel as a user writes it."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from archsim.config.errors import UserError
from archsim.config.schema import Spec
from archsim.config.units import PositiveInt, Timing, TimingNsOrClocks
from archsim.memory.address_map import parse_address_map


class Scheduler(StrEnum):
    """How a queued request is chosen."""

    FR_FCFS = "fr_fcfs"  # the oldest request whose row is open, else the oldest
    FR_FCFS_CAP = "fr_fcfs_cap"  # the same, but only `row_hit_cap` requests may pass an older one to their bank
    FCFS = "fcfs"  # the oldest, whatever rows are open


class PagePolicy(StrEnum):
    """What becomes of a row after its last queued request."""

    OPEN = "open"  # it stays open until another row of the bank is wanted
    CLOSED = "closed"  # it is closed as soon as nothing queued hits it
    ADAPTIVE = "adaptive"  # it is closed when nothing queued has hit it for `page_timeout`


class RefreshPolicy(StrEnum):
    """How rows are refreshed."""

    ALL_BANK = "all_bank"
    PER_BANK = "per_bank"
    SAME_BANK = "same_bank"  # one bank index in all bank groups of a stack ID at once
    NONE = "none"


class RefreshTurn(StrEnum):
    """Which bank per-bank refresh (or which set of banks same-bank refresh) comes to next."""

    IN_TURN = "in_turn"
    UNWANTED_FIRST = "unwanted_first"  # the last used of those that nothing queued wants


ZERO = Timing(clocks=0)


class ControllerSpec(Spec):
    """The memory controller of one channel. Queue sizes and watermarks are requests per pseudo-channel.

    Writes are drained when `write_high` of them wait (or no read does), until `write_low` are left and a read waits.
    `address_map` names the fields of a local burst address from the least significant on, see address_map.py.
    `refresh_stagger` delays the first refresh of each pseudo-channel against the one before it.

    `row_hit_cap` (fr_fcfs_cap alone) counts requests per opening of a row; its default is that of Ramulator 1.0.
    `starve_after`: a request queued so long goes before all others of its direction; zero: never.
    `page_timeout` belongs to the adaptive page policy.
    `forward_latency` is what a read answered from the write queue, or a write merged with a queued one, takes.
    `refresh_postpone` and `refresh_pull_in` count intervals tREFI by which a refresh may come late while its banks are
    wanted, or early after the queues have been empty for `refresh_idle`; JESD79 allows eight of each.
    `power_down_after`: a pseudo-channel with empty queues powers down after so long; zero: never.
    """

    scheduler: Scheduler = Scheduler.FR_FCFS
    row_hit_cap: PositiveInt = 16
    starve_after: TimingNsOrClocks = ZERO
    page_policy: PagePolicy = PagePolicy.OPEN
    page_timeout: TimingNsOrClocks | None = None
    write_forwarding: bool = False
    write_coalescing: bool = False
    forward_latency: TimingNsOrClocks = Timing(clocks=1)
    refresh: RefreshPolicy = RefreshPolicy.ALL_BANK
    refresh_order: RefreshTurn = RefreshTurn.UNWANTED_FIRST
    refresh_postpone: Annotated[int, Field(ge=0, le=8)] = 0
    refresh_pull_in: Annotated[int, Field(ge=0, le=8)] = 0
    refresh_idle: TimingNsOrClocks = ZERO
    refresh_stagger: TimingNsOrClocks = ZERO
    power_down_after: TimingNsOrClocks = ZERO
    latency_histogram: bool = False
    read_queue: PositiveInt = 32
    write_queue: PositiveInt = 32
    write_high: PositiveInt = 24
    write_low: PositiveInt = 8
    address_map: str = "bank_group column bank stack_id row"

    @model_validator(mode="after")
    def _check(self) -> "ControllerSpec":
        if self.write_high > self.write_queue:
            raise UserError(
                f"write_high = {self.write_high} can never be reached in a write queue of {self.write_queue}",
                expected=f"write_high <= {self.write_queue}",
            )
        if self.write_low >= self.write_high:
            raise UserError(
                f"write_low = {self.write_low} is not below write_high = {self.write_high}",
                expected=f"write_low < {self.write_high}",
            )
        if (self.page_policy is PagePolicy.ADAPTIVE) != (self.page_timeout is not None):
            raise UserError(
                f"page_timeout is {'missing' if self.page_timeout is None else 'given'} with page_policy = "
                f"{self.page_policy}",
                expected="page_policy: adaptive with a page_timeout such as '100 ns', or neither",
            )
        if "row_hit_cap" in self.model_fields_set and self.scheduler is not Scheduler.FR_FCFS_CAP:
            raise UserError(
                f"row_hit_cap is given with scheduler = {self.scheduler}", expected="scheduler: fr_fcfs_cap"
            )
        from archsim.kernels.channel import MAX_QUEUE

        for name, entries in (("read_queue", self.read_queue), ("write_queue", self.write_queue)):
            if entries > MAX_QUEUE:
                raise UserError(f"{name} = {entries} is longer than supported", expected=f"at most {MAX_QUEUE}")
        parse_address_map(self.address_map)
        return self
