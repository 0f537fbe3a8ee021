"""The exact shortcut: a memo from checkpoint state to checkpoint state.

A channel's future until the next checkpoint (a refresh, without refresh an ACT, or the end of a job) depends only on
its canonical form. The memo remembers, for each form met, what happened up to the next checkpoint: ticks, counts,
progress of streams and jobs, rows opened and closed, and the form it ended in. Meeting the form again, whatever stream,
layer or run it belongs to, those are added instead of simulated. Nothing is approximated: tests compare it with the
plain simulation.
"""

from __future__ import annotations

import numpy as np

from archsim.kernels.canonical import FORM_LENGTH, STREAM_PC_WORDS, STREAM_WORDS, read_form, write_form
from archsim.kernels.channel import (
    ACTIVE,
    ACTIVE_STREAMS,
    CHAINED,
    CHECKPOINT,
    COUNTS,
    FAW_NEXT,
    FINISHED_JOB,
    JOB,
    JOB_ACTIVE,
    JOB_ENDED,
    JOB_FIELDS,
    JOB_LAST_DATA,
    JOB_OPEN_READS,
    JOB_OPEN_WRITES,
    JOB_STARTED,
    LOG_CAPACITY,
    MAX_BANKS,
    MAX_JOBS,
    MAX_PCS,
    NOW,
    OPEN_ROW,
    RECORD_DONE,
    STREAM_BASE,
    STREAM_ISSUED,
    STREAM_JOB,
    STREAM_NEXT,
    STREAM_SHARE,
    STREAM_THRESHOLD,
    STREAM_WRITE,
    pseudo_channel,
)
from archsim.kernels.dram import run
from archsim.kernels.jit import inlined, kernel, pointer
from archsim.kernels.memo_tables import (
    COUNT_DELTAS,
    DT,
    FAWS,
    FINISHED,
    OPEN_ROWS,
    PERIOD_LENGTH,
    ROW_SPAN,
    SHUT,
    STREAM_DELTAS,
    TO,
    UNCHANGED,
    USED_FORMS,
    USED_WORDS,
    add_histogram,
    forget,
    note_histogram,
    record_histogram,
)
from archsim.kernels.outlook import (
    ROWS_BEHIND,
    has_form,
    reach,
    rows_ahead,
    stream_row,
    streams_apart,
    write_outlook,
)
from archsim.kernels.special import specialised
from archsim.kernels.timing import COUNT_WORDS, DramTiming


def advance_with_memo(state, q, bank_of, column_of, memo, until):  # type: ignore[no-untyped-def]
    """`dram.advance` with the memo: the same result.

    Args:
        state, q, bank_of, column_of, until: as in `dram.advance`.
        memo: a `Memo` used with this `q` and address map alone, made for histograms if `q` keeps one.
    """
    advance_special_with_memo(state, specialised(q), bank_of, column_of, memo, until)


@kernel
def advance_special_with_memo(state, q, bank_of, column_of, memo, until):  # type: ignore[no-untyped-def]
    """`advance_with_memo` for kernels, with `special.specialised` timing."""
    state[LOG_CAPACITY] = 0
    state[RECORD_DONE] = 0
    state[FINISHED_JOB] = -1
    nothing = np.zeros(1, np.int64)
    form = memo.scratch[:FORM_LENGTH]
    deltas = memo.scratch[FORM_LENGTH:]
    st = pointer(state)
    while True:
        here = -1
        if state[NOW] < until and has_form(st, q):
            here = identify(st, q, pointer(form), form, memo)
        if here >= 0:
            here = chain(st, q, memo, here, until, form, deltas)
            if state[FINISHED_JOB] >= 0 or state[NOW] >= until:
                return
            if here < 0:
                continue
            note_start(st, q, deltas)
        run(
            st, q, pointer(bank_of), pointer(column_of), pointer(nothing), pointer(nothing), pointer(nothing),
            pointer(nothing), until, True,
        )  # fmt: skip
        finished = state[FINISHED_JOB] >= 0
        if not finished and state[CHECKPOINT] == 0:
            return
        if here >= 0 and has_form(st, q):
            record(st, q, memo, here, form, deltas)
        if finished:
            return


@inlined
def identify(st, q: DramTiming, form_pointer, form, memo):  # type: ignore[no-untyped-def]
    """The id of the state's form, a new one if it was not met before."""
    n = write_form(st, q, form_pointer)
    digest = np.int64(n)
    for k in range(n):
        digest = (digest ^ form[k]) * np.int64(1099511628211)
        digest ^= digest >> 29
    mask = memo.table.shape[0] - 1
    slot = digest & mask
    while memo.table[slot] >= 0:
        known = memo.table[slot]
        if memo.digest[known] == digest and memo.length[known] == n:
            at = memo.start[known]
            same = True
            for k in range(n):
                if memo.forms[at + k] != form[k]:
                    same = False
                    break
            if same:
                return known
        slot = (slot + 1) & mask
    for k in range(n):
        if form[k] > 2147483647 or form[k] < -2147483648:
            return -1
    new = memo.used[USED_FORMS]
    at = memo.used[USED_WORDS]
    if new >= memo.start.shape[0] or at + n > memo.forms.shape[0]:
        forget(memo)
        return -1
    memo.table[slot] = new
    memo.start[new] = at
    memo.length[new] = n
    memo.digest[new] = digest
    memo.period[new, TO] = -1
    for k in range(n):
        memo.forms[at + k] = form[k]
    memo.used[USED_WORDS] = at + n
    memo.used[USED_FORMS] = new + 1
    return new


@inlined
def note_start(st, q: DramTiming, deltas):  # type: ignore[no-untyped-def]
    """Remember where everything stands at the start of a period to be recorded."""
    deltas[DT] = st[NOW]
    for p in range(MAX_PCS):
        pc = pseudo_channel(st, p)
        deltas[FAWS + p] = pc[FAW_NEXT]
        for bank in range(MAX_BANKS):
            deltas[OPEN_ROWS + p * MAX_BANKS + bank] = pc[OPEN_ROW + bank]
    for k in range(COUNT_WORDS):
        deltas[COUNT_DELTAS + k] = st[COUNTS + k]
    note_histogram(st, q, deltas)
    n = STREAM_DELTAS
    deltas[n] = st[ACTIVE_STREAMS]
    n += 1
    for k in range(st[ACTIVE_STREAMS]):
        s = st[ACTIVE + k]
        deltas[n] = s
        n += 1
        for p in range(q.pseudo_channels):
            pc = pseudo_channel(st, p)
            deltas[n] = pc[STREAM_NEXT + s]
            deltas[n + 1] = pc[STREAM_ISSUED + s]
            n += 2
    for job in range(MAX_JOBS):
        deltas[n] = st[JOB + job * JOB_FIELDS + JOB_STARTED]
        deltas[n + 1] = st[JOB + job * JOB_FIELDS + JOB_ENDED]
        n += 2


@inlined
def record(st, q: DramTiming, memo, here, form, deltas):  # type: ignore[no-untyped-def]
    """Note the period from form `here` to the present state, if it fits the memo's assumptions."""
    streams = deltas[STREAM_DELTAS]
    if STREAM_DELTAS + 1 + streams * (1 + 2 * q.pseudo_channels) + 2 * MAX_JOBS > PERIOD_LENGTH:
        return
    if not note_rows(st, q, deltas):
        return
    limit = reach(q)
    n = STREAM_DELTAS + 1
    for _ in range(streams):
        s = deltas[n]
        n += 1
        for p in range(q.pseudo_channels):
            pc = pseudo_channel(st, p)
            deltas[n] = pc[STREAM_NEXT + s] - deltas[n]
            deltas[n + 1] = pc[STREAM_ISSUED + s] - deltas[n + 1]
            if deltas[n] >= limit:
                return
            n += 2
    for job in range(MAX_JOBS):
        deltas[n] = st[JOB + job * JOB_FIELDS + JOB_STARTED] - deltas[n]
        deltas[n + 1] = st[JOB + job * JOB_FIELDS + JOB_ENDED] - deltas[n + 1]
        if deltas[n] >= limit:
            return
        n += 2
    deltas[DT] = st[NOW] - deltas[DT]
    deltas[FINISHED] = st[FINISHED_JOB]
    for p in range(MAX_PCS):
        deltas[FAWS + p] = pseudo_channel(st, p)[FAW_NEXT] - deltas[FAWS + p]
    # The form settles idle time first, so that the counts of the period include it.
    there = identify(st, q, pointer(form), form, memo)
    if there < 0 or memo.used[USED_FORMS] <= here or not record_histogram(st, q, memo, deltas):
        return
    for k in range(COUNT_WORDS):
        deltas[COUNT_DELTAS + k] = st[COUNTS + k] - deltas[COUNT_DELTAS + k]
    for k in range(n):
        memo.period[here, k] = deltas[k]
    memo.period[here, TO] = there


@inlined
def chain(st, q: DramTiming, memo, here, until, form, live):  # type: ignore[no-untyped-def]
    """Take known periods one after the other while they apply. The form reached, or -1 if it must be identified."""
    taken = 0
    matches = True
    while matches and memo.period[here, TO] >= 0 and st[NOW] + memo.period[here, DT] <= until:
        add_period(st, q, memo.period[here])
        add_histogram(st, q, memo, memo.period[here])
        finished = memo.period[here, FINISHED]
        here = memo.period[here, TO]
        taken += 1
        if finished >= 0:
            st[FINISHED_JOB] = finished
            st[JOB + finished * JOB_FIELDS + JOB_ACTIVE] = 0
            break
        matches = same_outlook(st, q, memo, here, live) and streams_apart(st, q)
    if taken == 0:
        return here
    st[CHAINED] += taken
    at = memo.start[here]
    for k in range(memo.length[here]):
        form[k] = memo.forms[at + k]
    read_form(st, q, pointer(form))
    if st[FINISHED_JOB] >= 0:
        last = JOB + st[FINISHED_JOB] * JOB_FIELDS + JOB_LAST_DATA
        st[last] = max(st[last], st[NOW])
    return here if matches else -1


@inlined
def add_period(st, q: DramTiming, period):  # type: ignore[no-untyped-def]
    """Move the clock, the counts and the progress of streams and jobs by one recorded period."""
    st[NOW] += period[DT]
    for p in range(MAX_PCS):
        pseudo_channel(st, p)[FAW_NEXT] += period[FAWS + p]
    for k in range(COUNT_WORDS):
        st[COUNTS + k] += period[COUNT_DELTAS + k]
    open_rows(st, q, period)
    n = STREAM_DELTAS + 1
    for _ in range(period[STREAM_DELTAS]):
        s = period[n]
        n += 1
        j = JOB + st[STREAM_JOB + s] * JOB_FIELDS
        for p in range(q.pseudo_channels):
            pc = pseudo_channel(st, p)
            pc[STREAM_NEXT + s] += period[n]
            pc[STREAM_ISSUED + s] += period[n + 1]
            st[j + (JOB_OPEN_WRITES if st[STREAM_WRITE + s] != 0 else JOB_OPEN_READS)] -= period[n + 1]
            n += 2
    jobs = n
    n = STREAM_DELTAS + 1
    for _ in range(period[STREAM_DELTAS]):
        s = period[n]
        for p in range(MAX_PCS):
            pc = pseudo_channel(st, p)
            pc[STREAM_THRESHOLD + s] += pc[STREAM_SHARE + s] * period[jobs + 2 * st[STREAM_JOB + s]]
        n += 1 + 2 * q.pseudo_channels
    for job in range(MAX_JOBS):
        st[JOB + job * JOB_FIELDS + JOB_STARTED] += period[jobs + 2 * job]
        st[JOB + job * JOB_FIELDS + JOB_ENDED] += period[jobs + 2 * job + 1]


@inlined
def same_outlook(st, q: DramTiming, memo, here, live):  # type: ignore[no-untyped-def]
    """Whether what is left of streams and jobs, and the rows in reach, are what the form says."""
    at = memo.start[here]
    # The form's active streams and jobs, not the (possibly stale) ones of the state.
    st[ACTIVE_STREAMS] = memo.forms[at + 2]
    n = memo.forms[at]
    for k in range(st[ACTIVE_STREAMS]):
        st[ACTIVE + k] = memo.forms[at + n]
        n += STREAM_WORDS + STREAM_PC_WORDS * q.pseudo_channels
    end = write_outlook(st, q, pointer(live), 3)
    if end != memo.forms[at]:
        return False
    for k in range(3, end):  # noqa: SIM110 (numba has no all() over a generator)
        if live[k] != memo.forms[at + k]:
            return False
    return True


@inlined
def note_rows(st, q: DramTiming, deltas):  # type: ignore[no-untyped-def]
    """Turn the rows open at the start of a period into what became of them. False if one cannot be told."""
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
    row_set = banks * q.columns
    for p in range(q.pseudo_channels):
        pc = pseudo_channel(st, p)
        for bank in range(banks):
            i = p * MAX_BANKS + bank
            row = pc[OPEN_ROW + bank]
            if row == deltas[OPEN_ROWS + i]:
                deltas[OPEN_ROWS + i] = UNCHANGED
                continue
            deltas[OPEN_ROWS + i] = SHUT
            if row < 0:
                continue
            n = STREAM_DELTAS + 1
            for k in range(deltas[STREAM_DELTAS]):
                s = deltas[n]
                start = (pc[STREAM_BASE + s] + deltas[n + 1 + 2 * p]) // row_set
                place = row - start + ROWS_BEHIND
                if 0 <= place <= rows_ahead(q) + ROWS_BEHIND:
                    deltas[OPEN_ROWS + i] = k * ROW_SPAN + place
                n += 1 + 2 * q.pseudo_channels
            if deltas[OPEN_ROWS + i] == SHUT:
                return False
    return True


@inlined
def open_rows(st, q: DramTiming, period):  # type: ignore[no-untyped-def]
    """Open and close the rows that a period opens and closes. Before the streams move on."""
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
    for p in range(q.pseudo_channels):
        pc = pseudo_channel(st, p)
        for bank in range(banks):
            code = period[OPEN_ROWS + p * MAX_BANKS + bank]
            if code == SHUT:
                pc[OPEN_ROW + bank] = -1
            elif code >= 0:
                s = period[STREAM_DELTAS + 1 + code // ROW_SPAN * (1 + 2 * q.pseudo_channels)]
                pc[OPEN_ROW + bank] = stream_row(st, q, s, p) + code % ROW_SPAN - ROWS_BEHIND
