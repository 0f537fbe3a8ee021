"""How requests get into the queues of the `hbm34` controller (hbm34.py) and out of them again."""

from __future__ import annotations

from archsim.kernels.hbm34_state import (
    ACT_FROM,
    ACT_OK,
    BANKS,
    COALESCED,
    COLUMN_OK,
    DEPTH,
    FILTER,
    FILTERS,
    FORWARDED,
    HIT_FROM,
    ID,
    INJECTED,
    KEY,
    LAST_RETURN,
    LENGTH,
    MODE,
    OPEN,
    PRE_FROM,
    PRE_OK,
    READ_LATENCY,
)
from archsim.kernels.jit import inlined


@inlined
def inject(s, clock, first, n, keys, columns, writes, arrivals, latencies, counts):  # type: ignore[no-untyped-def]
    """Queue up to four requests from `first` on. Returns the next one and whether it was refused."""
    end = min(first + INJECTED, n)
    for i in range(first, end):
        key, write = keys[i], writes[i]
        pc = (key & 63) >> 5
        slot = FILTER + (((key << 5) ^ (key >> 5) ^ columns[i]) & (FILTERS - 1))
        if s[slot] > 0:
            same = False
            base = (2 + pc) * DEPTH
            for k in range(base, base + s[LENGTH + 2 + pc]):
                same = same or (s[KEY + k] == key and columns[s[ID + k]] == columns[i])
            if same:
                if write:
                    counts[COALESCED] += 1
                else:
                    counts[FORWARDED] += 1
                    counts[READ_LATENCY] += 1
                    latencies[i] = 1
                    s[LAST_RETURN] = max(s[LAST_RETURN], clock + 1)
                continue
        lane = 2 * write + pc
        if s[LENGTH + 2 * write] + s[LENGTH + 2 * write + 1] >= DEPTH:
            return i, True
        place = lane * DEPTH + s[LENGTH + lane]
        s[KEY + place] = key
        s[ID + place] = i
        s[LENGTH + lane] += 1
        arrivals[i] = clock
        if write:
            s[slot] += 1
        if write == s[MODE]:
            bank = key & 63
            if s[OPEN + bank] < 0:
                s[ACT_FROM + pc] = min(s[ACT_FROM + pc], s[ACT_OK + bank])
            elif s[OPEN + bank] == key:
                s[HIT_FROM + pc] = min(s[HIT_FROM + pc], s[COLUMN_OK + write * BANKS + bank])
            else:
                s[PRE_FROM + pc] = min(s[PRE_FROM + pc], s[PRE_OK + bank])
    return end, False


@inlined
def dequeue(s, lane, place, columns):  # type: ignore[no-untyped-def]
    """Take the request at `place` out of its lane; the others keep their order."""
    base = lane * DEPTH
    if lane >= 2:
        key = s[KEY + base + place]
        s[FILTER + (((key << 5) ^ (key >> 5) ^ columns[s[ID + base + place]]) & (FILTERS - 1))] -= 1
    last = s[LENGTH + lane] - 1
    for k in range(base + place, base + last):
        s[KEY + k] = s[KEY + k + 1]
        s[ID + k] = s[ID + k + 1]
    s[LENGTH + lane] = last
