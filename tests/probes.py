"""Probes: for each rule of the checker the shortest story in which `after` follows `before` as closely as it may.

A rule can be wrong in two ways: too loose, which breaks the DRAM, and too tight, which wastes it. So both the checker
and the kernel are asked for the very tick. `plant` writes the commands themselves, for the checker. `issue` finds the
requests that make the kernel issue them. What else then delays `after` is read off the checker's own answer
(`lower_bounds`), so which rule is hidden behind which other ones follows from the numbers of a standard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from dram_cases import Case, address_tables, submit, trace_arrays

from archsim.kernels import channel
from archsim.kernels.dram import advance
from archsim.kernels.oracle import OracleJob, OracleStream
from archsim.kernels.timing import Command, DramTiming, LogField, RefreshMode
from archsim.memory.checker import PRECHARGES, RULES, WHOLE_PC, Rule, Scope, check_commands

ACT, PRE, PREAB, RD, WR, REFAB, REFPB, REFSB, PDE, PDX = Command
COLUMNS = (RD, WR)
UNIT_REFRESHES = (REFPB, REFSB)
REFRESHES = (PREAB, REFAB, *UNIT_REFRESHES)  # what only a refresh makes the kernel issue
POWER = (PDE, PDX)
MODE_OF = {
    PREAB: RefreshMode.ALL_BANK, REFAB: RefreshMode.ALL_BANK, REFPB: RefreshMode.PER_BANK,
    REFSB: RefreshMode.SAME_BANK,
}  # fmt: skip
FAR = 1 << 30
DISTANCES = {rule.name for rule in RULES}

Log = np.ndarray


@dataclass(frozen=True, order=True)
class Place:
    """A bank of a channel."""

    pc: int
    sid: int = 0
    group: int = 0
    bank: int = 0

    def local(self, q: DramTiming) -> int:
        """The bank's number in its pseudo-channel."""
        return (self.sid * q.banks_per_group + self.bank) * q.bank_groups + self.group


@dataclass(frozen=True)
class Probe:
    """A rule and the pair of commands to try it on."""

    rule: Rule
    before: Command
    after: Command

    def __str__(self) -> str:
        return f"{self.rule.name}: {self.before.name}-{self.after.name}"

    @property
    def refresh_mode(self) -> RefreshMode | None:
        """The refresh mode in which a controller issues both commands; None if there is no such mode.

        A pseudo-channel that wakes for a refresh alone may power down again soonest."""
        if (self.before, self.after) == (PDX, PDE):
            return RefreshMode.ALL_BANK
        modes = {MODE_OF[command] for command in (self.before, self.after) if command in MODE_OF}
        return None if len(modes) > 1 else next(iter(modes), RefreshMode.NONE)

    def channel(self, q: DramTiming) -> DramTiming:
        """The channel to try it on: one in which the rule holds."""
        return q._replace(**{self.rule.switch: 1}) if self.rule.switch else q


PROBES = [Probe(rule, before, after) for rule in RULES for before in rule.before for after in rule.after]


def places(probe: Probe, q: DramTiming) -> tuple[Place, Place] | None:
    """Where `before` and `after` go, as the rule's scope has it; None if this channel has no such two banks."""
    home = Place(0)
    other_bank = Place(0, bank=1) if q.banks_per_group > 1 else None
    other_group = Place(0, group=1) if q.bank_groups > 1 else None
    other_sid = Place(0, sid=1) if q.stack_ids > 1 else None
    if REFSB in (probe.before, probe.after):
        other_group = other_bank or other_sid  # a bank that the REFsb does not cover
        if probe.before == probe.after and probe.rule.scope == Scope.PSEUDO_CHANNEL and other_sid is not None:
            return Place(0, bank=q.banks_per_group - 1), other_sid  # one after the other in turn
    scope = probe.rule.scope
    if scope == Scope.CHANNEL and q.pseudo_channels > 1:
        # A refresh is timed by its pseudo-channel's turn, and the first one's comes first.
        late_refresh = probe.after in REFRESHES and probe.before not in REFRESHES
        return (Place(1), home) if late_refresh else (home, Place(1))
    other = {
        Scope.CHANNEL: other_group or other_bank,
        Scope.PSEUDO_CHANNEL: other_group or other_bank,
        Scope.OTHER_STACK_ID: other_sid,
        Scope.GROUP: other_bank,
        Scope.OTHER_GROUP: other_group,
        Scope.BANK: home,
        Scope.STACK_ID: other_bank,
    }[scope]
    if other is None:
        return None
    again = probe.before == REFSB and probe.after == REFSB
    return (other, home) if probe.after in UNIT_REFRESHES and not again else (home, other)  # refresh begins with bank 0


def settled(q: DramTiming) -> int:
    """A time (a rising edge) after which no distance of the table holds any more."""
    return 4 * q.ticks_per_ck * sum(rule.ticks(q) for rule in RULES)


def rising(q: DramTiming, command: Command, tick: int) -> int:
    """The first tick from `tick` on at which a command may start: precharges start on either edge."""
    return tick if command in PRECHARGES else -(-tick // q.ticks_per_ck) * q.ticks_per_ck


# ---- what the checker says -------------------------------------------------------------------------------------------


def entry(tick: int, command: Command, place: Place, row: int = 1) -> list[int]:
    has_row = command in (ACT, *COLUMNS)
    return [tick, command, *address(command, place), row if has_row else -1, 0 if command in COLUMNS else -1]


def address(command: Command, place: Place) -> list[int]:
    """Where a log says that a command to a place goes: pseudo-channel, stack ID, group, bank."""
    if command in WHOLE_PC:
        return [place.pc, -1, -1, -1]
    return [place.pc, place.sid, -1 if command == REFSB else place.group, place.bank]


def broken(q: DramTiming, log: Log) -> dict[str, int]:
    """The distances that the last command of a log breaks, and the tick from which on each would be kept."""
    last = len(log) - 1
    found = [v for v in check_commands(q, log) if v.after.index == last and v.rule in DISTANCES]
    bounds: dict[str, int] = {}
    for violation in found:
        assert violation.before is not None
        bounds[violation.rule] = max(bounds.get(violation.rule, 0), violation.before.tick + violation.needed)
    return bounds


def lower_bounds(q: DramTiming, log: Log) -> dict[str, int]:
    """For the last command of a log: the first tick that each rule allows, of the rules not kept by the time of the
    command before it."""
    early = log.copy()
    early[-1, LogField.TICK] = log[-2, LogField.TICK]
    return broken(q, early)


def plant(probe: Probe, q: DramTiming) -> Log | None:
    """A probe's commands, `after` last and as early as every rule allows; None if the channel has no such banks."""
    where = places(probe, q)
    if where is None:
        return None
    first, second = where
    start = settled(q)
    log = [entry(k * start // 4, ACT, place) for k, place in enumerate(open_from_the_start(probe, first, second))]
    asleep = [first] if probe.before == PDX else []
    asleep += [second] if probe.after == PDX and first.pc != second.pc else []
    log += [entry(rising(q, PDE, (2 + k) * start // 5), PDE, place) for k, place in enumerate(asleep)]
    if probe.rule.nth > 1:
        spread = spread_banks(q, probe.rule.nth + 1)
        if spread is None:
            return None
        for place in spread[:-1]:
            log.append(_earliest(q, log, start, ACT, place))
        second = spread[-1]
    else:
        log.append(entry(start, probe.before, first))
    if first.pc == second.pc and probe.before == PDE and probe.after != PDX:
        log.append(_earliest(q, log, start, PDX, first))
    if first.pc == second.pc and probe.after == PDX and probe.before != PDE:
        log.append(_earliest(q, log, start, PDE, first))
    if first.pc == second.pc and probe.before in COLUMNS and probe.after == REFAB:
        log.append(_earliest(q, log, start, PREAB, first))
    if first.pc == second.pc and probe.before in (PREAB, REFAB) and probe.after in COLUMNS:
        log.append(_earliest(q, log, start, ACT, second))
    reopens = first == second and probe.after in (ACT, *UNIT_REFRESHES)
    if probe.before == ACT and first.pc == second.pc and (reopens or probe.after == REFAB):
        log.append(_earliest(q, log, start, PRE, first))  # the row must be closed again
    log.append(_earliest(q, log, start, probe.after, second))
    return np.array(log, np.int64)


def open_from_the_start(probe: Probe, first: Place, second: Place) -> list[Place]:
    """Banks with an open row when `before` comes, so that the two commands make sense."""
    rows = {first} if probe.before in (RD, WR, PRE, PREAB) else set()
    if first != second and probe.after in (RD, WR, PRE, PREAB):
        rows.add(second)
    if probe.before in (PREAB, REFAB) and first.pc == second.pc:
        rows -= {second} if first != second or probe.before == REFAB else set()
    return sorted(rows)


def _earliest(q: DramTiming, log: list[list[int]], start: int, command: Command, place: Place) -> list[int]:
    """A command at the first tick from `start` on that every distance allows."""
    tick = max(start, log[-1][0]) if log else start
    bounds = broken(q, np.array([*log, entry(tick, command, place)], np.int64))
    return entry(rising(q, command, max([tick, *bounds.values()])), command, place)


def spread_banks(q: DramTiming, number: int) -> list[Place] | None:
    """Different banks of a pseudo-channel, each in another group than the one before it where there are groups."""
    banks = [
        Place(0, sid, group, bank)
        for sid in range(q.stack_ids)
        for bank in range(q.banks_per_group)
        for group in range(q.bank_groups)
    ]
    return banks[:number] if len(banks) >= number else None


# ---- what the kernel does --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    tick: int
    place: Place
    row: int
    write: bool = False


@dataclass(frozen=True)
class Issued:
    """A probe as the kernel ran it: the log up to `after`, and the earliest tick that the requests and the refresh
    interval left for it."""

    log: Log
    wanted: int

    @property
    def tick(self) -> int:
        return int(self.log[-1, LogField.TICK])


def issue(probe: Probe, q: DramTiming) -> Issued | None:
    """Make the kernel issue a probe's commands. None if no requests can: the channel has no such banks, or no refresh
    mode has both commands."""
    where, mode = places(probe, q), probe.refresh_mode
    if where is None or mode is None:
        return None
    first, second = where
    start = settled(q)
    banks = spread_banks(q, probe.rule.nth + 1) if probe.rule.nth > 1 else None
    if probe.rule.nth > 1:
        if banks is None:
            return None
        requests, second = [Request(start, place, 1) for place in banks], banks[-1]
    else:
        requests = list(_requests(probe, first, second, start))
    timing, wanted = _with_refresh(probe, probe.channel(q), mode, first, second, start)
    if {probe.before, probe.after} & set(POWER):
        story = power_story(probe, q, first, second, start)
        requests, wanted = list(story.requests), story.wanted
        timing = timing._replace(power_down_after=story.power_down_after, **story.refresh(timing))
    log = _run(timing, requests, until=_end(timing, start))
    before, after = _find(probe, timing, log, first, second, start)
    assert before is not None and after is not None, f"the kernel never issued {probe}"
    if probe.after in REFRESHES and probe.before in REFRESHES:
        wanted = _due(timing, log[: after + 1])
    if probe.after == PDE:
        wanted = max(wanted, _idle_since(log[:after], second.pc) + timing.power_down_after)
    return Issued(log[: after + 1], wanted)


def _requests(probe: Probe, first: Place, second: Place, start: int) -> Iterator[Request]:
    """Reads and writes that make the kernel issue `before` at `start` and want `after` at once."""
    for place in open_from_the_start(probe, first, second):
        yield Request(0, place, 1)
    same = first == second
    write = probe.before == WR or (same and probe.after == WR)
    if probe.before == PRE:
        yield Request(start, first, 2)
    elif probe.before in (ACT, RD, WR):
        yield Request(start, first, 1, write)
    if same and probe.before == PRE:
        return  # the row that took the other's place is the rest of the story
    waits = probe.before == WR and probe.after == RD  # a read would go before the write
    waits |= bool(probe.rule.switch) and probe.before in (ACT, PRE)  # a column command would go before those
    turn = start + 1 if waits else start
    if probe.after in COLUMNS and not same:
        yield Request(turn, second, 1, probe.after == WR)
    elif probe.after == PRE:
        if probe.before in (PREAB, REFAB) and first.pc == second.pc:
            yield Request(start, second, 2)
        yield Request(start, second, 3, write)
    elif probe.after == ACT:
        yield Request(start, second, 2, write)
    elif probe.after == PREAB and probe.before in REFRESHES and first.pc == second.pc:
        yield Request(start, second, 1)  # something to close again


def _with_refresh(
    probe: Probe, q: DramTiming, mode: RefreshMode, first: Place, second: Place, start: int
) -> tuple[DramTiming, int]:
    """The timing with a refresh when the probe needs it, and the tick from which on `after` is wanted."""
    interval, stagger = start, FAR
    if probe.before not in REFRESHES:
        interval = start + q.ticks_per_ck
    elif probe.after in REFRESHES:
        stagger = 0
        if first.pc == second.pc and probe.after == probe.before and probe.before != PREAB:
            interval = q.ticks_per_ck  # again at once
    wanted = interval if probe.after in REFRESHES else start
    refreshed = q._replace(
        refresh_mode=int(mode), refresh_stagger=stagger, tREFI=interval, tREFIpb=interval, tREFIsb=interval
    )
    return refreshed, wanted


@dataclass(frozen=True)
class PowerStory:
    """What makes a pair of commands with a PDE or PDX come: requests, how soon an idle pseudo-channel powers down, when
    the first refresh is due (None: as without power-down), and from which tick on `after` is wanted."""

    requests: tuple[Request, ...]
    power_down_after: int
    wanted: int
    due: int | None = None

    def refresh(self, q: DramTiming) -> dict[str, int]:
        """The fields of the timing that say when refreshes are due."""
        return {} if self.due is None else dict.fromkeys(("tREFI", "tREFIpb", "tREFIsb"), self.due)


def power_story(probe: Probe, q: DramTiming, first: Place, second: Place, start: int) -> PowerStory:
    """Four kinds of story: one goes to sleep, one wakes up, and something else before or after each."""
    same, after = first.pc == second.pc, probe.after
    opened = [Request(0, place, 1) for place in open_from_the_start(probe, first, second)]
    makes_before = [] if probe.before in REFRESHES or probe.before == PDE else [_demand(probe.before, first, start)]

    def story(down: int, wanted: int, *requests: Request, due: int | None = None) -> PowerStory:
        return PowerStory(tuple(sorted([*opened, *makes_before, *requests], key=when)), down, wanted, due)

    def when(request: Request) -> int:
        return request.tick

    falls_due = start + q.ticks_per_ck  # as `_with_refresh` has it
    later = 2 * start if probe.before != PDE else start + start // 2
    if probe.before == PDE:
        if same and after != PDX:  # it has to wake up in between
            asked = [] if after in REFRESHES else [_demand(after, second, later)]
            return story(start, later, *asked, due=later if after in REFRESHES else None)
        if after == PDE:
            return story(start, 0)  # both have been idle from the first tick on
        if after in REFRESHES:
            return story(start, falls_due)
        asked_at = start + 1 if same or after != PDX else later  # by then the other one sleeps, too
        return story(start, asked_at, _demand(after, second, asked_at))
    if after == PDE:
        if same:
            refreshes = probe.before in REFRESHES or probe.before == PDX
            if probe.before == PDX:
                makes_before.clear()  # the refresh wakes it
            return story(1, 0, due=start if refreshes else None)
        down = start // 2 if probe.before == PDX else start
        keeps_awake = [Request(start - 1, second, 1)] if probe.before == PDX else []
        return story(down, 0, *keeps_awake)
    if after == PDX:
        if same:
            return story(start // 2, later, *([] if probe.before in REFRESHES else [_demand(ACT, second, later)]))
        woken = start if probe.before == PDX else rising(q, ACT, start) + max(q.tXP, 1) + 1
        return story(start // 2, rising(q, PDX, woken), _demand(ACT, second, rising(q, PDX, woken)))
    if after in REFRESHES:  # after a PDX at `start`, as below
        return story(start // 2, start, due=start) if same else story(start // 2, falls_due)
    return story(start // 2, start, _demand(after, second, start))


def _demand(command: Command, place: Place, tick: int) -> Request:
    """A request for which a command comes: of the open row, or of another one."""
    return Request(tick, place, 1 if command in COLUMNS else 2, command == WR)


def _end(q: DramTiming, start: int) -> int:
    """When the story is over: after the second refresh, or after each bank has been refreshed twice."""
    if q.tREFI >= start or q.refresh_mode == RefreshMode.NONE:
        return 3 * start
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
    between = q.tRFCsb if q.refresh_mode == RefreshMode.SAME_BANK else q.tRREFD
    return 2 * (q.tRFCab + q.tRFCpb) + (banks + 2) * (between + q.precharge_ticks + q.ticks_per_ck)


def _idle_since(log: Log, pc: int) -> int:
    """The first tick at which nothing is queued after a pseudo-channel's last column command."""
    mine = log[(log[:, LogField.PSEUDO_CHANNEL] == pc) & np.isin(log[:, LogField.COMMAND], COLUMNS)]
    return int(mine[-1, LogField.TICK]) + 1 if len(mine) else 0


def _due(q: DramTiming, log: Log) -> int:
    """When the refresh that the last command belongs to fell due."""
    pc = log[-1, LogField.PSEUDO_CHANNEL]
    mine = log[:-1][log[:-1, LogField.PSEUDO_CHANNEL] == pc]
    done = np.isin(mine[:, LogField.COMMAND], (REFAB, *UNIT_REFRESHES)).sum()
    return int((done + 1) * q.tREFI)


def _run(q: DramTiming, requests: list[Request], until: int) -> Log:
    """The kernel's log of these requests up to a tick."""
    bank_of, column_of = address_tables(q)
    slot = {int(bank): burst for burst, bank in reversed(list(enumerate(bank_of)))}
    row_set = len(bank_of)
    mine = [[r for r in requests if r.place.pc == pc] for pc in range(q.pseudo_channels)]
    stream = OracleStream(
        [np.array([r.row * row_set + slot[r.place.local(q)] for r in part], np.int64) for part in mine],
        arrivals=[np.array([r.tick for r in part], np.int64) for part in mine],
        writes=[np.array([r.write for r in part], np.int8) for part in mine],
    )
    case = Case(q, bank_of, column_of, (stream,), (OracleJob(),))
    trace, arrival, base = trace_arrays(case)
    state = channel.new_state(q)
    submit(case, state, 0, base)
    log = np.full((1 << 10, len(LogField)), -1, np.int64)
    while state[channel.NOW] < until:
        advance(state, q, bank_of, column_of, trace, arrival, np.zeros(0, np.int64), log, until, False)
    return log[: state[channel.LOG_LENGTH]]


def _find(
    probe: Probe, q: DramTiming, log: Log, first: Place, second: Place, start: int
) -> tuple[int | None, int | None]:
    """Indices of `before` and of the next `after`, each at its place."""

    def at(command: Command, place: Place, index: int) -> bool:
        code, *where = log[index, 1:6].tolist()
        return code == command and where == address(command, place)

    earliest = start if q.tREFI >= start and probe.before not in (REFAB, *UNIT_REFRESHES) else 0
    before = next((i for i in range(len(log)) if log[i, 0] >= earliest and at(probe.before, first, i)), None)
    if before is None:
        return None, None
    same_refresh = probe.before == probe.after and probe.before in UNIT_REFRESHES
    if same_refresh and probe.rule.scope != Scope.BANK and first.pc == second.pc:
        mine = (log[:, LogField.COMMAND] == probe.before) & (log[:, LogField.PSEUDO_CHANNEL] == first.pc)
        return before, next((i for i in range(before + 1, len(log)) if mine[i]), None)
    return before, next((i for i in range(before + 1, len(log)) if at(probe.after, second, i)), None)


# ---- what hides behind what ------------------------------------------------------------------------------------------

REQUESTS = "the requests, or when a refresh falls due"


def hidden_behind(probe: Probe, q: DramTiming, issued: Issued) -> list[str]:
    """What else keeps `after` from coming before the tick that the rule gives, if anything does."""
    bounds = lower_bounds(q, issued.log)
    mine = rising(q, probe.after, bounds.pop(probe.rule.name, 0))
    bounds[REQUESTS] = issued.wanted
    return [name for name, tick in bounds.items() if rising(q, probe.after, tick) >= mine]
