"""Column and row commands for queued requests: choose, issue, and note what they delay (policy: steps 4 and 5)."""

from __future__ import annotations

from archsim.kernels.candidates import age_key, next_hit, offer_column, offer_row, refresh_keys, rising_edge
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
    LIST_END,
    LOG_CAPACITY,
    LOG_LENGTH,
    MAX_BANKS,
    MAX_PCS,
    MAX_QUEUE,
    MAX_STACK_IDS,
    OPEN_ROW,
    PDE_OK,
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
    WRITE_MODE,
    pseudo_channel,
)
from archsim.kernels.jit import inlined
from archsim.kernels.policies import note_activate, note_column
from archsim.kernels.refresh_choice import note_use
from archsim.kernels.special import front_policies, powers_down, pseudo_channels, refresh_choice, shared_bus
from archsim.kernels.tiles import burst_issued, leave_stream
from archsim.kernels.timing import DramTiming

# timing.Command (and the counts of commands) and timing.Count, as plain ints for the compiler.
ACT, PRE, RD, WR, REFSB = 0, 1, 3, 4, 7
HITS, LATENCY, BUSY, REFRESH, TURNAROUND, ROW = 7, 10, 11, 12, 13, 14
BANK_MASK = (1 << BANK_BITS) - 1


@inlined
def issue_column(state, q: DramTiming, now, column_of, done, log):  # type: ignore[no-untyped-def]
    """Issue the oldest legal column command of the channel, if there is one at this tick."""
    p = 0
    if pseudo_channels(q) == MAX_PCS:
        p = int(pseudo_channel(state, 1)[BEST_COLUMN] < pseudo_channel(state, 0)[BEST_COLUMN])
    pc = pseudo_channel(state, p)
    best = pc[BEST_COLUMN]
    if best >> KEY_BITS > now:
        return
    banks_per_sid = q.bank_groups * q.banks_per_group
    if shared_bus(q) and state[COLUMN_BUS_FREE] > now:  # a refresh took it in this very tick
        return
    bank = best & BANK_MASK
    w = pc[WRITE_MODE]
    o = w * MAX_BANKS + bank
    entry = pc[HIT_SLOT + o]
    account_bus_time(state, q, p, w, now)
    hold_column_bus(state, q, p, now)
    sid = state[STACK_ID_OF + bank]
    read = state[GROUP_FIRST + bank]
    if w == 0:
        state[COUNTS + RD] += 1
        complete = now + q.tCL + q.tBL
        for _ in range(q.banks_per_group):
            pc[COLUMN_OK + read] = max(pc[COLUMN_OK + read], now + q.tCCDL)
            read += q.bank_groups
        for other_sid in range(q.stack_ids):
            gap = q.tCCDS if other_sid == sid else max(q.tCCDS, q.tCCDR)
            k = other_sid
            pc[BUS_OK + k] = max(pc[BUS_OK + k], now + gap)
            k = MAX_STACK_IDS + other_sid
            pc[BUS_OK + k] = max(pc[BUS_OK + k], now + q.tRTW)
        pc[PRE_OK + bank] = max(pc[PRE_OK + bank], now + q.tRTP)
        if powers_down(q):
            pc[PDE_OK] = max(pc[PDE_OK], complete)
    else:
        state[COUNTS + WR] += 1
        data_end = now + q.tCWL + q.tBL
        complete = data_end
        for _ in range(q.banks_per_group):
            write = read + MAX_BANKS
            pc[COLUMN_OK + write] = max(pc[COLUMN_OK + write], now + q.tCCDLW)
            pc[COLUMN_OK + read] = max(pc[COLUMN_OK + read], data_end + q.tWTRL)
            read += q.bank_groups
        for other_sid in range(q.stack_ids):
            gap = q.tCCDS if other_sid == sid else max(q.tCCDS, q.tCCDR)
            k = MAX_STACK_IDS + other_sid
            pc[BUS_OK + k] = max(pc[BUS_OK + k], now + gap)
            k = other_sid
            pc[BUS_OK + k] = max(pc[BUS_OK + k], data_end + q.tWTRS)
        pc[PRE_OK + bank] = max(pc[PRE_OK + bank], data_end + q.tWR)
        if powers_down(q):
            pc[PDE_OK] = max(pc[PDE_OK], data_end + q.tWR)
    pc[READY + bank] = pc[PRE_OK + bank]
    state[COUNTS + HITS + pc[ENTRY_TOUCHED + entry]] += 1
    state[COUNTS + LATENCY] += complete
    if state[LOG_CAPACITY] > 0:
        row_set = q.stack_ids * banks_per_sid * q.columns
        column = column_of[pc[ENTRY_ADDRESS + entry] % row_set]
        write_log(state, q, log, now, RD + w, p, bank, pc[OPEN_ROW + bank], column)
    if front_policies(q):
        note_column(state, pc, q, w, bank, entry, now, complete)
    leave_queue(state, q, p, w, bank, o, entry, now)
    if refresh_choice(q):
        note_use(pc, q, bank, now)
    s = pc[ENTRY_STREAM + entry]
    if state[RECORD_DONE] > 0 and state[STREAM_TRACE + s] != 0:
        done[pc[STREAM_BASE + s] + pc[ENTRY_INDEX + entry]] = complete
    pc[ADMIT_AT] = now + 1
    if burst_issued(state, q, p, s, w, complete):
        leave_stream(state, q, s)


@inlined
def leave_queue(state, q: DramTiming, p, w, bank, o, entry, now):  # type: ignore[no-untyped-def]
    """Take a served request out of its bank's list and find the bank's next hit."""
    pc = pseudo_channel(state, p)
    depth = q.write_queue if w != 0 else q.read_queue
    pool = w * MAX_QUEUE
    pc[QUEUED + w] -= 1
    pc[FREE_ENTRY + pool + depth - 1 - pc[QUEUED + w]] = entry
    previous = pc[ENTRY_PREVIOUS + entry]
    following = pc[ENTRY_NEXT + entry]
    pc[ENTRY_NEXT + previous] = following
    pc[ENTRY_PREVIOUS + following] = previous
    hit = next_hit(pc, o, following, pc[OPEN_ROW + bank])
    if front_policies(q) and q.row_hit_cap > 0:  # the bank may be capped from now on, for both directions
        refresh_keys(state, q, p, bank)
        hit = pc[HIT_SLOT + o]
    pc[HIT_SLOT + o] = hit
    pc[HIT_KEY + o] = age_key(pc, hit, bank)
    if hit >= LIST_END:
        pc[ROW_KEY + o] = age_key(pc, pc[HEAD + o], bank)
        offer_row(state, q, p, w, bank, now)


@inlined
def account_bus_time(state, q: DramTiming, p, w, now):  # type: ignore[no-untyped-def]
    """Attribute the data-bus time since the last burst slot: refresh, turnaround, else row; then the burst itself."""
    pc = pseudo_channel(state, p)
    start = pc[SLOT_END]
    gap = now - start
    if gap > 0:
        overlap = min(now, pc[REFRESH_END]) - max(start, pc[REFRESH_BEGIN])
        refresh_ticks = min(gap, max(0, overlap) + pc[REFRESH_FOLDED])
        turnaround = 0
        if w + pc[LAST_WRITE] == 1:  # none before the first burst, when LAST_WRITE is -1
            minimum = q.tRTW if w != 0 else q.tCWL + q.tBL + q.tWTRS
            turnaround = min(gap - refresh_ticks, max(minimum - q.tCCDS, 0))
        state[COUNTS + REFRESH] += refresh_ticks
        state[COUNTS + TURNAROUND] += turnaround
        state[COUNTS + ROW] += gap - refresh_ticks - turnaround
    pc[REFRESH_FOLDED] = 0
    state[COUNTS + BUSY] += q.tCCDS
    pc[SLOT_END] = now + q.tCCDS
    pc[LAST_WRITE] = w


@inlined
def issue_row(state, q: DramTiming, now, log):  # type: ignore[no-untyped-def]
    """Issue the ACT or PRE of the oldest request that needs one, if the row bus is free at this tick."""
    if state[ROW_BUS_FREE] > now:
        return
    p = 0
    if pseudo_channels(q) == MAX_PCS:
        p = int(pseudo_channel(state, 1)[BEST_ROW] < pseudo_channel(state, 0)[BEST_ROW])
    pc = pseudo_channel(state, p)
    best = pc[BEST_ROW]
    if best >> KEY_BITS > now:
        return
    bank = best & BANK_MASK
    oldest = pc[HEAD + pc[WRITE_MODE] * MAX_BANKS + bank]
    if pc[CLOSED + bank] == 0:
        if pc[ENTRY_TOUCHED + oldest] == 0:
            pc[ENTRY_TOUCHED + oldest] = 2
        precharge(state, q, p, bank, now, log)
        return
    if pc[ENTRY_TOUCHED + oldest] == 0:
        pc[ENTRY_TOUCHED + oldest] = 1
    activate(state, q, p, bank, pc[ENTRY_ROW + oldest], now, log)


@inlined
def activate(state, q: DramTiming, p, bank, row, now, log):  # type: ignore[no-untyped-def]
    """ACT: open a row."""
    pc = pseudo_channel(state, p)
    pc[OPEN_ROW + bank] = row
    pc[CLOSED + bank] = 0
    pc[COLUMN_OK + bank] = max(pc[COLUMN_OK + bank], now + q.tRCDRD)
    pc[COLUMN_OK + MAX_BANKS + bank] = max(pc[COLUMN_OK + MAX_BANKS + bank], now + q.tRCDWR)
    pc[PRE_OK + bank] = now + q.tRAS
    if front_policies(q):
        note_activate(pc, q, bank, now)
    pc[READY + bank] = pc[PRE_OK + bank]
    pc[ACT_OK + bank] = now + q.tRC
    group_ok = now + q.tRRDL
    other = state[GROUP_FIRST + bank]
    for _ in range(q.banks_per_group):
        pc[GROUP_ACT_OK + other] = group_ok
        pc[READY + other] = max(pc[READY + other], group_ok & pc[CLOSED + other])
        other += q.bank_groups
    pc[RRD_OK] = now + q.tRRDS
    pc[FAW + (pc[FAW_NEXT] & 3)] = now + q.tFAW
    pc[FAW_NEXT] += 1
    state[COUNTS + ACT] += 1
    hold_row_bus(state, q, now, q.activate_ticks)
    if q.refresh_mode == 0 and bank == 0 and p == q.pseudo_channels - 1:
        state[CHECKPOINT] = 1
    refresh_keys(state, q, p, bank)
    offer_column(state, q, p, pc[WRITE_MODE], bank, now)
    pc[ROW_DIRTY] = 1
    write_log(state, q, log, now, ACT, p, bank, row, -1)


@inlined
def precharge(state, q: DramTiming, p, bank, now, log):  # type: ignore[no-untyped-def]
    """PRE: close a bank's row."""
    pc = pseudo_channel(state, p)
    close_row(pc, q, bank, now)
    pc[PRE_ANY_OK] = now + q.tPPD
    state[COUNTS + PRE] += 1
    hold_row_bus(state, q, now, q.precharge_ticks)
    refresh_keys(state, q, p, bank)
    pc[ROW_DIRTY] = 1
    write_log(state, q, log, now, PRE, p, bank, -1, -1)


@inlined
def close_row(pc, q: DramTiming, bank, now):  # type: ignore[no-untyped-def]
    """What a PRE or PREab at this tick means to a bank. Its ACT waits for a rising edge."""
    pc[OPEN_ROW + bank] = -1
    pc[CLOSED + bank] = -1
    pc[ACT_OK + bank] = max(pc[ACT_OK + bank], rising_edge(q, now + q.tRP))
    pc[READY + bank] = max(pc[ACT_OK + bank], pc[GROUP_ACT_OK + bank])


@inlined
def hold_column_bus(state, q: DramTiming, p, now):  # type: ignore[no-untyped-def]
    """The column bus is taken by pseudo-channel p; a shared bus is so for row commands, too."""
    free = now + q.column_ticks
    state[COLUMN_BUS_FREE] = free
    pseudo_channel(state, p)[COLUMN_DIRTY] = 1
    if pseudo_channels(q) == MAX_PCS:
        other = pseudo_channel(state, 1 - p)
        if other[BEST_COLUMN] >> KEY_BITS < free:
            other[COLUMN_DIRTY] = 1
    if shared_bus(q):
        state[ROW_BUS_FREE] = free
        delay_rows(state, q, free)


@inlined
def hold_row_bus(state, q: DramTiming, now, ticks):  # type: ignore[no-untyped-def]
    """The row bus is taken for so long; a shared bus is so for column commands, too."""
    state[ROW_BUS_FREE] = now + ticks
    delay_rows(state, q, now + ticks)
    if shared_bus(q):
        state[COLUMN_BUS_FREE] = now + ticks
        for p in range(pseudo_channels(q)):
            pc = pseudo_channel(state, p)
            if pc[BEST_COLUMN] >> KEY_BITS < now + ticks:
                pc[COLUMN_DIRTY] = 1


@inlined
def delay_rows(state, q: DramTiming, free):  # type: ignore[no-untyped-def]
    """Row candidates that come before the bus is free are to be searched anew."""
    for p in range(pseudo_channels(q)):
        pc = pseudo_channel(state, p)
        if pc[BEST_ROW] >> KEY_BITS < free:
            pc[ROW_DIRTY] = 1


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
        log[8 * n + 4] = -1 if command == REFSB else bank % q.bank_groups
        log[8 * n + 5] = bank // q.bank_groups % q.banks_per_group
    log[8 * n + 6] = row
    log[8 * n + 7] = column
