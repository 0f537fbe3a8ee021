"""The controller preset `hbm34-fcfs`: one HBM3 channel under FR-FCFS as Ramulator 2.1 schedules it, tick by tick.

It exists to be compared command by command with that simulator; archsim's own controller is `dram.py`. A tick is half
a CK. In each: clock + 1, refresh requests, the column slot (odd ticks), the row slot (on even ticks only precharges).
Ticks in which nothing can happen are stepped over: for each pseudo-channel and class of command a lower bound of the
first tick at which one may issue is kept, and lowered whenever a candidate appears.

Ramulator's rule that an even tick's PRE avoids what the odd tick before it touched is implied by the gaps between
commands (every row command and column keeps a PRE of its bank, and PREab, away for longer than a tick).
"""

from __future__ import annotations

from archsim.kernels.hbm34_pick import pick_active, pick_hit, pick_row
from archsim.kernels.hbm34_queue import dequeue, inject
from archsim.kernels.hbm34_state import (
    ACT,
    ACT_FROM,
    ACT_NUMBER,
    ACT_OK,
    ACTIVE,
    ACTIVE_FROM,
    ACTIVE_ID,
    ACTIVE_LANE,
    ACTIVE_LENGTH,
    ACTIVE_RANK,
    BANKS,
    BANKS_OF_PC,
    CLOCK,
    COLUMN_BUS,
    COLUMN_OK,
    COMMANDS,
    CONFLICTS,
    DEPTH,
    DRAINED,
    FIRST_COMMAND,
    FOLLOWING,
    GROUP_OK,
    GROUPS,
    HIT_FROM,
    HITS,
    ID,
    INJECTED,
    KEY,
    LANE_OK,
    LAST_RETURN,
    LENGTH,
    LOG_FIELDS,
    LOG_LENGTH,
    LOG_PER_TICK,
    LOG_ROOM,
    MISSES,
    MODE,
    NEVER,
    OPEN,
    OPEN_BANKS,
    PC_ACT_OK,
    PC_PRE_OK,
    PCS,
    PRE_FROM,
    PRE_OK,
    PREAB,
    PREAB_OK,
    PREPB,
    RD,
    READ_LATENCY,
    READ_QUEUE,
    REFAB,
    REFAB_OK,
    REFRESH_ASKED,
    REFRESH_DONE,
    REFRESH_QUEUE,
    ROW_BUS,
    STARTED,
    TICKS,
    WINDOW,
    WINDOW_NEXT,
    WRITE_QUEUE,
    Hbm34Timing,
)
from archsim.kernels.jit import inlined, kernel, pointer


@inlined
def _note(log, counts, clock, command, what):  # type: ignore[no-untyped-def]
    if counts[LOG_ROOM] > 0:
        n = counts[LOG_LENGTH]
        log[LOG_FIELDS * n] = clock
        log[LOG_FIELDS * n + 1] = command
        log[LOG_FIELDS * n + 2] = what
        counts[LOG_LENGTH] = n + 1
    counts[COMMANDS] += 1
    counts[FIRST_COMMAND + command] += 1


@inlined
def _other_mode_due(s, q):  # type: ignore[no-untyped-def]
    queued = s[LENGTH + 2] + s[LENGTH + 3]
    no_reads = s[LENGTH] + s[LENGTH + 1] == 0
    if s[MODE]:
        return queued <= q.write_off and not no_reads
    return queued >= q.write_on or no_reads


@inlined
def _settle_mode(s, q):  # type: ignore[no-untyped-def]
    if _other_mode_due(s, q):
        s[MODE] = 1 - s[MODE]
        for k in range(ACT_FROM, ACTIVE_FROM):
            s[k] = 0


@inlined
def _column(s, q, clock, write, bank):  # type: ignore[no-untyped-def]
    """What a RD or WR does to the times of other commands."""
    pc, group = bank >> 5, bank >> 2
    s[COLUMN_BUS] = clock + q.column_column
    if write:
        s[LANE_OK + pc] = max(s[LANE_OK + pc], clock + q.wr_rd)
        s[LANE_OK + 2 + pc] = max(s[LANE_OK + 2 + pc], clock + q.wr_wr)
        s[GROUP_OK + group] = max(s[GROUP_OK + group], clock + q.wr_rd_g)
        s[GROUP_OK + GROUPS + group] = max(s[GROUP_OK + GROUPS + group], clock + q.wr_wr_g)
        s[PRE_OK + bank] = max(s[PRE_OK + bank], clock + q.wr_pre)
        s[PREAB_OK + pc] = max(s[PREAB_OK + pc], clock + q.wr_pre)
    else:
        s[LANE_OK + pc] = max(s[LANE_OK + pc], clock + q.rd_rd)
        s[LANE_OK + 2 + pc] = max(s[LANE_OK + 2 + pc], clock + q.rd_wr)
        s[GROUP_OK + group] = max(s[GROUP_OK + group], clock + q.rd_rd_g)
        sibling = GROUP_OK + ((group >> 2) ^ 1) * 4
        for g in range(sibling, sibling + 4):
            s[g] = max(s[g], clock + q.rd_rd_sid)
        s[PRE_OK + bank] = max(s[PRE_OK + bank], clock + q.rd_pre)
        s[PREAB_OK + pc] = max(s[PREAB_OK + pc], clock + q.rd_pre)


@inlined
def _column_slot(s, q, clock, columns, arrivals, latencies, decided, counts, log):  # type: ignore[no-untyped-def]
    request = bank = write = -1
    pc, k = pick_active(s, clock, arrivals)
    if k >= 0:
        request = s[ACTIVE_ID + k]
        bank = s[ACTIVE_LANE + k] & 63
        write = s[ACTIVE_LANE + k] >> 6
        last = s[ACTIVE_LENGTH + pc] - 1
        for j in range(k, pc * BANKS_OF_PC + last):
            s[ACTIVE_ID + j] = s[ACTIVE_ID + j + 1]
            s[ACTIVE_LANE + j] = s[ACTIVE_LANE + j + 1]
            s[ACTIVE_RANK + j] = s[ACTIVE_RANK + j + 1]
        s[ACTIVE_LENGTH + pc] = last
        s[ACTIVE + bank] = 0
    elif s[REFRESH_DONE] == s[REFRESH_ASKED]:
        _settle_mode(s, q)
        lane, k = pick_hit(s, clock)
        if k < 0:
            return
        write = s[MODE]
        request = s[ID + lane * DEPTH + k]
        bank = s[KEY + lane * DEPTH + k] & 63
        if not decided[request]:
            counts[HITS] += 1
        dequeue(s, lane, k, columns)
    else:
        return
    _column(s, q, clock, write, bank)
    _note(log, counts, clock, RD + write, request)
    s[PRE_FROM + (bank >> 5)] = min(s[PRE_FROM + (bank >> 5)], s[PRE_OK + bank])
    if write:  # done, as far as the controller is concerned
        latencies[request] = clock - arrivals[request]
    else:
        latencies[request] = clock + q.read_latency - arrivals[request]
        counts[READ_LATENCY] += latencies[request]
        s[LAST_RETURN] = clock + q.read_latency


@inlined
def _activate(s, q, clock, key, write, request):  # type: ignore[no-untyped-def]
    bank = key & 63
    pc, group = bank >> 5, bank >> 2
    s[OPEN + bank] = key
    s[OPEN_BANKS + pc] += 1
    for b in range(ACT_OK + group * 4, ACT_OK + group * 4 + 4):
        s[b] = max(s[b], clock + q.act_act_g)
    s[ACT_OK + bank] = clock + q.act_act_b
    s[COLUMN_OK + bank] = clock + q.act_rd_b
    s[COLUMN_OK + BANKS + bank] = clock + q.act_wr_b
    s[PRE_OK + bank] = clock + q.act_pre
    s[PREAB_OK + pc] = max(s[PREAB_OK + pc], clock + q.act_pre)
    s[REFAB_OK + pc] = max(s[REFAB_OK + pc], clock + q.act_refab)
    s[ROW_BUS] = clock + q.act_row
    place = s[WINDOW_NEXT + pc]
    s[WINDOW + pc * 4 + place] = clock
    place = (place + 1) & 3
    s[WINDOW_NEXT + pc] = place
    s[PC_ACT_OK + pc] = max(clock + q.act_act, s[WINDOW + pc * 4 + place] + q.act_window)
    hits = 0
    queued = KEY + (2 * s[MODE] + pc) * DEPTH
    for k in range(queued, queued + s[LENGTH + 2 * s[MODE] + pc]):
        hits += s[k] == key
    if hits > 0:
        s[HIT_FROM + pc] = min(s[HIT_FROM + pc], s[COLUMN_OK + s[MODE] * BANKS + bank])
    k = pc * BANKS_OF_PC + s[ACTIVE_LENGTH + pc]
    s[ACTIVE_ID + k] = request
    s[ACTIVE_LANE + k] = write * BANKS + bank
    s[ACTIVE_RANK + k] = s[ACT_NUMBER]
    s[ACT_NUMBER] += 1
    s[ACTIVE_LENGTH + pc] += 1
    s[ACTIVE + bank] = 1
    s[ACTIVE_FROM + pc] = min(s[ACTIVE_FROM + pc], s[COLUMN_OK + write * BANKS + bank])


@inlined
def _refresh_ok(s, pc):  # type: ignore[no-untyped-def]
    """The first tick at which the refresh at the head may take its next step, PREab or REFab."""
    if s[OPEN_BANKS + pc] == 0:
        return max(s[REFAB_OK + pc], s[ROW_BUS]) | 1
    if s[ACTIVE_LENGTH + pc] > 0:
        return NEVER
    return max(s[PREAB_OK + pc], s[PC_PRE_OK + pc], s[ROW_BUS])


@inlined
def _refresh_slot(s, q, clock, counts, log):  # type: ignore[no-untyped-def]
    pc = s[REFRESH_DONE] & 1
    if clock < _refresh_ok(s, pc) or (s[OPEN_BANKS + pc] == 0 and (clock & 1) == 0):
        return
    if s[OPEN_BANKS + pc] > 0:
        for bank in range(pc * BANKS_OF_PC, (pc + 1) * BANKS_OF_PC):
            s[OPEN + bank] = -1
        s[OPEN_BANKS + pc] = 0
        s[PC_ACT_OK + pc] = max(s[PC_ACT_OK + pc], clock + q.pre_act)
        s[PC_PRE_OK + pc] = clock + q.pre_pre
        s[REFAB_OK + pc] = max(s[REFAB_OK + pc], clock + q.pre_refab)
        s[ACT_FROM + pc] = 0
        _note(log, counts, clock, PREAB, pc - 2)
    else:
        s[PC_ACT_OK + pc] = max(s[PC_ACT_OK + pc], clock + q.refab_act)
        s[PREAB_OK + pc] = max(s[PREAB_OK + pc], clock + q.refab_preab)
        s[REFRESH_DONE] += 1
        _note(log, counts, clock, REFAB, pc - 2)


@inlined
def _row_slot(s, q, clock, columns, decided, counts, log):  # type: ignore[no-untyped-def]
    if s[REFRESH_DONE] != s[REFRESH_ASKED]:
        _refresh_slot(s, q, clock, counts, log)
        return
    _settle_mode(s, q)
    if clock < s[ROW_BUS]:
        return
    lane, k = pick_row(s, clock)
    if k < 0:
        return
    key, request = s[KEY + lane * DEPTH + k], s[ID + lane * DEPTH + k]
    bank = key & 63
    pc = bank >> 5
    if s[OPEN + bank] < 0:
        if not decided[request]:
            counts[MISSES] += 1
        dequeue(s, lane, k, columns)
        _activate(s, q, clock, key, lane >> 1, request)
        _note(log, counts, clock, ACT, request)
    else:
        if not decided[request]:
            counts[CONFLICTS] += 1
            decided[request] = 1
        s[OPEN + bank] = -1
        s[OPEN_BANKS + pc] -= 1
        s[ACT_OK + bank] = max(s[ACT_OK + bank], clock + q.pre_act)
        s[PC_PRE_OK + pc] = clock + q.pre_pre
        s[REFAB_OK + pc] = max(s[REFAB_OK + pc], clock + q.pre_refab)
        s[ACT_FROM + pc] = min(s[ACT_FROM + pc], s[ACT_OK + bank])
        _note(log, counts, clock, PREPB, request)


@inlined
def _next_event(s, q, clock):  # type: ignore[no-untyped-def]
    """A tick before which no command can issue and no refresh falls due, if no request comes in."""
    event = NEVER
    if q.refresh_interval > 0:
        event = (clock // q.refresh_interval + 1) * q.refresh_interval
    for pc in range(PCS):
        if s[ACTIVE_LENGTH + pc] > 0:
            event = min(event, max(s[ACTIVE_FROM + pc], s[COLUMN_BUS]) | 1)
    if s[REFRESH_DONE] != s[REFRESH_ASKED]:
        return max(clock + 1, min(event, _refresh_ok(s, s[REFRESH_DONE] & 1)))
    if _other_mode_due(s, q):
        return clock + 1
    mode = s[MODE]
    for pc in range(PCS):
        lane = 2 * mode + pc
        if s[LENGTH + lane] > 0:
            event = min(event, max(s[ACT_FROM + pc], s[PC_ACT_OK + pc], s[ROW_BUS]) | 1)
            event = min(event, max(s[PRE_FROM + pc], s[PC_PRE_OK + pc], s[ROW_BUS]))
            event = min(event, max(s[HIT_FROM + pc], s[LANE_OK + lane], s[COLUMN_BUS]) | 1)
    return max(clock + 1, event)


@inlined
def _begin(s, q):  # type: ignore[no-untyped-def]
    for bank in range(BANKS):
        s[OPEN + bank] = -1
    for k in range(WINDOW, WINDOW_NEXT):
        s[k] = -q.act_window
    s[STARTED] = 1


@inlined
def _serve(q, n, last, s, keys, columns, writes, arrivals, latencies, decided, counts, log):  # type: ignore[no-untyped-def]
    if not s[STARTED]:
        _begin(s, q)
    clock, following = s[CLOCK], s[FOLLOWING]
    refused = False
    while True:
        if not last and n - following < INJECTED:
            break
        if counts[LOG_ROOM] > 0 and counts[LOG_ROOM] - counts[LOG_LENGTH] < LOG_PER_TICK:
            break
        if following < n:
            following, refused = inject(s, clock, following, n, keys, columns, writes, arrivals, latencies, counts)
        counts[READ_QUEUE] += s[LENGTH] + s[LENGTH + 1]
        counts[WRITE_QUEUE] += s[LENGTH + 2] + s[LENGTH + 3]
        counts[REFRESH_QUEUE] += s[REFRESH_ASKED] - s[REFRESH_DONE]
        clock += 1
        if q.refresh_interval > 0 and clock % q.refresh_interval == 0:
            s[REFRESH_ASKED] += PCS
        if (clock & 1) == 1 and clock >= s[COLUMN_BUS]:
            _column_slot(s, q, clock, columns, arrivals, latencies, decided, counts, log)
        _row_slot(s, q, clock, columns, decided, counts, log)
        reads, write_queue = s[LENGTH] + s[LENGTH + 1], s[LENGTH + 2] + s[LENGTH + 3]
        if following < n:
            waiting = write_queue if writes[following] else reads
            if not refused or waiting < DEPTH:
                continue
        elif not last:
            continue
        event = _next_event(s, q, clock)
        if following == n and reads + write_queue + s[ACTIVE_LENGTH] + s[ACTIVE_LENGTH + 1] == 0:
            if clock >= s[LAST_RETURN]:
                s[DRAINED] = 1
                break
            event = min(event, s[LAST_RETURN])
        idle = event - clock - 1
        counts[READ_QUEUE] += idle * reads
        counts[WRITE_QUEUE] += idle * write_queue
        counts[REFRESH_QUEUE] += idle * (s[REFRESH_ASKED] - s[REFRESH_DONE])
        clock = event - 1
    s[CLOCK], s[FOLLOWING] = clock, following
    counts[TICKS] = clock


@kernel
def serve_requests(q: Hbm34Timing, state, keys, columns, writes, last, arrivals, latencies, decided, counts, log):  # type: ignore[no-untyped-def]
    """Serve requests in order of injection, as far as the log has room and those there are determine what happens.

    Everything is int64. `state` has STATE_WORDS, zeros in the beginning, and is taken up where it was left. Without
    `last`, more requests may follow: it stops before the tick that could inject one of them. With it, it goes on to
    the last read's data. Out: `arrivals`, `latencies` (in ticks: a read's to the last of its data, a write's to its
    WR), `counts` (Hbm34Count), and `log` (flat, LOG_FIELDS to a command) if it has room at all. `decided` is the
    kernel's own, a zero for each new request.
    """
    counts[LOG_ROOM] = len(log) // LOG_FIELDS
    _serve(
        q,
        len(keys),
        last,
        pointer(state),
        pointer(keys),
        pointer(columns),
        pointer(writes),
        pointer(arrivals),
        pointer(latencies),
        pointer(decided),
        pointer(counts),
        pointer(log),
    )
