"""Column and row commands for queued requests: choose, issue, and note what they delay (policy: steps 4 and 5)."""

from __future__ import annotations

from archsim.kernels.candidates import offer_column, offer_row, pseudo_channels, refresh_keys
from archsim.kernels.channel import (
    ACT_OK,
    ADMIT_AT,
    BANK_BITS,
    BEST_COLUMN,
    BEST_ROW,
    BUS_OK,
    CHECKPOINT,
    CLOSED,
    COLUMN_BUS_FREE,
    COLUMN_DIRTY,
    COLUMN_OK,
    COUNTS,
    ENTRY_ADDRESS,
    ENTRY_AGE,
    ENTRY_INDEX,
    ENTRY_NEXT,
    ENTRY_PREVIOUS,
    ENTRY_ROW,
    ENTRY_STREAM,
    ENTRY_TOUCHED,
    FAW,
    FAW_NEXT,
    FREE_ENTRY,
    GROUP_ACT_OK,
    GROUP_FIRST,
    HEAD,
    HIT_KEY,
    HIT_SLOT,
    KEY_BITS,
    LAST_WRITE,
    LOG_CAPACITY,
    LOG_LENGTH,
    MAX_BANKS,
    MAX_PCS,
    MAX_QUEUE,
    MAX_STACK_IDS,
    NO_KEY,
    OPEN_ROW,
    PRE_ANY_OK,
    PRE_OK,
    QUEUED,
    READY,
    RECORD_DONE,
    REFRESH_BEGIN,
    REFRESH_END,
    REFRESH_FOLDED,
    ROW_BUS_FREE,
    ROW_DIRTY,
    ROW_KEY,
    RRD_OK,
    SLOT_END,
    STACK_ID_OF,
    STREAM_BASE,
    STREAM_TRACE,
    TAIL,
    WRITE_MODE,
)
from archsim.kernels.jit import inlined
from archsim.kernels.tiles import burst_issued, leave_stream
from archsim.kernels.timing import DramTiming

# timing.Command (and the counts of commands) and timing.Count, as plain ints for the compiler.
ACT, PRE, RD, WR = 0, 1, 3, 4
HITS, LATENCY, BUSY, REFRESH, TURNAROUND, ROW = 7, 10, 11, 12, 13, 14
BANK_MASK = (1 << BANK_BITS) - 1


@inlined
def issue_column(state, q: DramTiming, now, column_of, done, log):  # type: ignore[no-untyped-def]
    """Issue the oldest legal column command of the channel, if there is one at this tick."""
    best = state[BEST_COLUMN]
    p = 0
    for other in range(1, pseudo_channels(q)):
        if state[BEST_COLUMN + other] < best:
            best = state[BEST_COLUMN + other]
            p = other
    if best >> KEY_BITS > now:
        return
    banks_per_sid = q.bank_groups * q.banks_per_group
    bank = best & BANK_MASK
    w = state[WRITE_MODE + p]
    o = (2 * p + w) * MAX_BANKS + bank
    i = p * MAX_BANKS + bank
    entry = state[HIT_SLOT + o]
    account_bus_time(state, q, p, w, now)
    state[COLUMN_BUS_FREE] = now + q.column_ticks
    for other in range(pseudo_channels(q)):
        if other == p or state[BEST_COLUMN + other] >> KEY_BITS < now + q.column_ticks:
            state[COLUMN_DIRTY + other] = 1
    sid = state[STACK_ID_OF + bank]
    group_first = p * MAX_BANKS + state[GROUP_FIRST + bank]
    read_first = group_first + p * MAX_BANKS  # the same bank's index in the [p, w, b] arrays
    write_first = read_first + MAX_BANKS
    if w == 0:
        state[COUNTS + RD] += 1
        complete = now + q.tCL + q.tBL
        for k in range(0, banks_per_sid, q.bank_groups):
            state[COLUMN_OK + read_first + k] = max(state[COLUMN_OK + read_first + k], now + q.tCCDL)
        for other_sid in range(q.stack_ids):
            gap = q.tCCDS if other_sid == sid else max(q.tCCDS, q.tCCDR)
            k = 2 * p * MAX_STACK_IDS + other_sid
            state[BUS_OK + k] = max(state[BUS_OK + k], now + gap)
            k = (2 * p + 1) * MAX_STACK_IDS + other_sid
            state[BUS_OK + k] = max(state[BUS_OK + k], now + q.tRTW)
        state[PRE_OK + i] = max(state[PRE_OK + i], now + q.tRTP)
    else:
        state[COUNTS + WR] += 1
        data_end = now + q.tCWL + q.tBL
        complete = data_end
        for k in range(0, banks_per_sid, q.bank_groups):
            state[COLUMN_OK + write_first + k] = max(state[COLUMN_OK + write_first + k], now + q.tCCDL)
            state[COLUMN_OK + read_first + k] = max(state[COLUMN_OK + read_first + k], data_end + q.tWTRL)
        for other_sid in range(q.stack_ids):
            gap = q.tCCDS if other_sid == sid else max(q.tCCDS, q.tCCDR)
            k = (2 * p + 1) * MAX_STACK_IDS + other_sid
            state[BUS_OK + k] = max(state[BUS_OK + k], now + gap)
            k = 2 * p * MAX_STACK_IDS + other_sid
            state[BUS_OK + k] = max(state[BUS_OK + k], data_end + q.tWTRS)
        state[PRE_OK + i] = max(state[PRE_OK + i], data_end + q.tWR)
    state[READY + i] = state[PRE_OK + i]
    state[COUNTS + HITS + state[ENTRY_TOUCHED + entry]] += 1
    state[COUNTS + LATENCY] += complete
    if state[LOG_CAPACITY] > 0:
        row_set = q.stack_ids * banks_per_sid * q.columns
        column = column_of[state[ENTRY_ADDRESS + entry] % row_set]
        write_log(state, q, log, now, RD + w, p, bank, state[OPEN_ROW + i], column)
    leave_queue(state, q, p, w, bank, o, i, entry, now)
    s = state[ENTRY_STREAM + entry]
    if state[RECORD_DONE] > 0 and state[STREAM_TRACE + s] != 0:
        done[state[STREAM_BASE + s * MAX_PCS + p] + state[ENTRY_INDEX + entry]] = complete
    state[ADMIT_AT + p] = now + 1
    if burst_issued(state, q, p, s, w, complete):
        leave_stream(state, q, s)


@inlined
def leave_queue(state, q: DramTiming, p, w, bank, o, i, entry, now):  # type: ignore[no-untyped-def]
    """Take a served request out of its bank's list and find the bank's next hit."""
    depth = q.write_queue if w != 0 else q.read_queue
    pool = (2 * p + w) * MAX_QUEUE
    state[QUEUED + 2 * p + w] -= 1
    state[FREE_ENTRY + pool + depth - 1 - state[QUEUED + 2 * p + w]] = entry
    previous = state[ENTRY_PREVIOUS + entry]
    following = state[ENTRY_NEXT + entry]
    if previous >= 0:
        state[ENTRY_NEXT + previous] = following
    else:
        state[HEAD + o] = following
    if following >= 0:
        state[ENTRY_PREVIOUS + following] = previous
    else:
        state[TAIL + o] = previous
    row = state[OPEN_ROW + i]
    while following >= 0 and state[ENTRY_ROW + following] != row:
        following = state[ENTRY_NEXT + following]
    state[HIT_SLOT + o] = following
    if following >= 0:
        state[HIT_KEY + o] = (state[ENTRY_AGE + following] << BANK_BITS) | bank
        return
    state[HIT_KEY + o] = NO_KEY
    if state[HEAD + o] >= 0:
        state[ROW_KEY + o] = (state[ENTRY_AGE + state[HEAD + o]] << BANK_BITS) | bank
        offer_row(state, q, p, w, bank, now)


@inlined
def account_bus_time(state, q: DramTiming, p, w, now):  # type: ignore[no-untyped-def]
    """Attribute the data-bus time since the last burst slot: refresh, turnaround, else row; then the burst itself."""
    start = state[SLOT_END + p]
    gap = now - start
    if gap > 0:
        overlap = min(now, state[REFRESH_END + p]) - max(start, state[REFRESH_BEGIN + p])
        refresh_ticks = min(gap, max(0, overlap) + state[REFRESH_FOLDED + p])
        turnaround = 0
        if w + state[LAST_WRITE + p] == 1:  # none before the first burst, when LAST_WRITE is -1
            minimum = q.tRTW if w != 0 else q.tCWL + q.tBL + q.tWTRS
            turnaround = min(gap - refresh_ticks, max(minimum - q.tCCDS, 0))
        state[COUNTS + REFRESH] += refresh_ticks
        state[COUNTS + TURNAROUND] += turnaround
        state[COUNTS + ROW] += gap - refresh_ticks - turnaround
    state[REFRESH_FOLDED + p] = 0
    state[COUNTS + BUSY] += q.tCCDS
    state[SLOT_END + p] = now + q.tCCDS
    state[LAST_WRITE + p] = w


@inlined
def issue_row(state, q: DramTiming, now, log):  # type: ignore[no-untyped-def]
    """Issue the ACT or PRE of the oldest request that needs one, if the row bus is free at this tick."""
    if state[ROW_BUS_FREE] > now:
        return
    best = NO_KEY
    p = -1
    for other in range(pseudo_channels(q)):
        if state[BEST_ROW + other] < best:
            best = state[BEST_ROW + other]
            p = other
    if p < 0 or best >> KEY_BITS > now:
        return
    bank = best & BANK_MASK
    i = p * MAX_BANKS + bank
    oldest = state[HEAD + (2 * p + state[WRITE_MODE + p]) * MAX_BANKS + bank]
    if state[CLOSED + i] == 0:
        if state[ENTRY_TOUCHED + oldest] == 0:
            state[ENTRY_TOUCHED + oldest] = 2
        precharge(state, q, p, bank, now, log)
        return
    if state[ENTRY_TOUCHED + oldest] == 0:
        state[ENTRY_TOUCHED + oldest] = 1
    activate(state, q, p, bank, state[ENTRY_ROW + oldest], now, log)


@inlined
def activate(state, q: DramTiming, p, bank, row, now, log):  # type: ignore[no-untyped-def]
    """ACT: open a row."""
    banks_per_sid = q.bank_groups * q.banks_per_group
    i = p * MAX_BANKS + bank
    state[OPEN_ROW + i] = row
    state[CLOSED + i] = 0
    read = 2 * p * MAX_BANKS + bank
    state[COLUMN_OK + read] = max(state[COLUMN_OK + read], now + q.tRCDRD)
    state[COLUMN_OK + read + MAX_BANKS] = max(state[COLUMN_OK + read + MAX_BANKS], now + q.tRCDWR)
    state[PRE_OK + i] = now + q.tRAS
    state[READY + i] = state[PRE_OK + i]
    state[ACT_OK + i] = now + q.tRC
    group_first = p * MAX_BANKS + state[GROUP_FIRST + bank]
    for k in range(0, banks_per_sid, q.bank_groups):
        state[GROUP_ACT_OK + group_first + k] = now + q.tRRDL
    state[RRD_OK + p] = now + q.tRRDS
    state[FAW + 4 * p + (state[FAW_NEXT + p] & 3)] = now + q.tFAW
    state[FAW_NEXT + p] += 1
    state[COUNTS + ACT] += 1
    hold_row_bus(state, q, now, q.activate_ticks)
    if q.refresh_mode == 0 and bank == 0 and p == q.pseudo_channels - 1:
        state[CHECKPOINT] = 1
    refresh_keys(state, q, p, bank)
    offer_column(state, q, p, state[WRITE_MODE + p], bank, now)
    state[ROW_DIRTY + p] = 1
    write_log(state, q, log, now, ACT, p, bank, row, -1)


@inlined
def precharge(state, q: DramTiming, p, bank, now, log):  # type: ignore[no-untyped-def]
    """PRE: close a bank's row."""
    i = p * MAX_BANKS + bank
    state[OPEN_ROW + i] = -1
    state[CLOSED + i] = -1
    state[ACT_OK + i] = max(state[ACT_OK + i], now + q.tRP)
    state[READY + i] = state[ACT_OK + i]
    state[PRE_ANY_OK + p] = now + q.tPPD
    state[COUNTS + PRE] += 1
    hold_row_bus(state, q, now, q.precharge_ticks)
    refresh_keys(state, q, p, bank)
    state[ROW_DIRTY + p] = 1
    write_log(state, q, log, now, PRE, p, bank, -1, -1)


@inlined
def hold_row_bus(state, q: DramTiming, now, ticks):  # type: ignore[no-untyped-def]
    state[ROW_BUS_FREE] = now + ticks
    for p in range(pseudo_channels(q)):
        if state[BEST_ROW + p] >> KEY_BITS < now + ticks:
            state[ROW_DIRTY + p] = 1


@inlined
def write_log(state, q: DramTiming, log, now, command, p, bank, row, column):  # type: ignore[no-untyped-def]
    """Append a command to the log, if there is one and it has room."""
    n = state[LOG_LENGTH]
    if n >= state[LOG_CAPACITY]:
        return
    state[LOG_LENGTH] = n + 1
    log[8 * n + 0] = now
    log[8 * n + 1] = command
    log[8 * n + 2] = p
    log[8 * n + 3] = -1
    log[8 * n + 4] = -1
    log[8 * n + 5] = -1
    if bank >= 0:
        log[8 * n + 3] = bank // (q.bank_groups * q.banks_per_group)
        log[8 * n + 4] = bank % q.bank_groups
        log[8 * n + 5] = bank // q.bank_groups % q.banks_per_group
    log[8 * n + 6] = row
    log[8 * n + 7] = column
