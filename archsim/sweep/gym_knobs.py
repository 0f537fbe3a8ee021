"""The knobs of a memory controller: those that a memory takes, found by asking it.

ArchGym's DRAM knobs (Krishnan et al., ISCA 2023, table 3) and what they are here:

| ArchGym | here |
|---|---|
| page policy | `page_policy` |
| scheduler | `scheduler` |
| request buffer size, scheduler buffer | `read_queue`, `write_queue`: one buffer for each direction |
| arbiter | `write_high`, `write_low`: when the bus turns from reads to writes and back |
| refresh policy | `refresh`, `refresh_order` |
| maximum of postponed and of pulled-in refreshes | `refresh_postpone`, `refresh_pull_in` |
| maximum of active transactions | the queues; in a decode step also `stream_window` |

Beside those: `write_forwarding`, `write_coalescing`, `starve_after`, `address_map`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from archsim.config.errors import UserError
from archsim.memory.controller import ControllerSpec, PagePolicy, RefreshPolicy, RefreshTurn, Scheduler
from archsim.memory.standard import DramStandard

Scalar = str | int | float | bool
Choice = Mapping[str, Scalar]
"""What a knob's value sets: keys of ControllerSpec, or paths of an experiment."""

WRITE_HIGH_SHARES = (0.5, 0.75, 0.9)
"""Of the write queue: at so many waiting writes the bus turns to them."""
WRITE_LOW_SHARES = (0.1, 0.25, 0.4)
"""Of the write queue: at so many left it turns back."""
PAGE_TIMEOUT = "100 ns"
"""Of the adaptive page policy, about twice tRC."""


@dataclass(frozen=True)
class Knob:
    """One dimension of the action space: a name, and what each of its values is called and sets."""

    name: str
    labels: tuple[Scalar, ...]
    choices: tuple[Choice, ...]

    def __len__(self) -> int:
        return len(self.labels)


def _knob(name: str, values: Sequence[Scalar]) -> Knob:
    return Knob(name, tuple(values), tuple({name: value} for value in values))


def candidates() -> tuple[Knob, ...]:
    """Every knob that a controller has, whether the kernel takes it or not. A refresh policy of none is left out: a
    memory without refresh loses its data."""
    return (
        _knob("scheduler", [policy.value for policy in Scheduler]),
        Knob(
            "page_policy",
            tuple(policy.value for policy in PagePolicy),
            tuple(
                {"page_policy": policy.value, "page_timeout": PAGE_TIMEOUT}
                if policy is PagePolicy.ADAPTIVE
                else {"page_policy": policy.value}
                for policy in PagePolicy
            ),
        ),
        _knob("read_queue", [8, 16, 32, 64, 128]),
        _knob("write_queue", [8, 16, 32, 64, 128]),
        _knob("write_high", WRITE_HIGH_SHARES),
        _knob("write_low", WRITE_LOW_SHARES),
        _knob("refresh", [policy.value for policy in RefreshPolicy if policy is not RefreshPolicy.NONE]),
        _knob("refresh_order", [order.value for order in RefreshTurn]),
        _knob("refresh_postpone", [0, 1, 2, 4, 8]),
        _knob("refresh_pull_in", [0, 1, 2, 4, 8]),
        _knob("starve_after", ["0 ns", "500 ns", "1 us", "2 us"]),
        _knob("write_forwarding", [False, True]),
        _knob("write_coalescing", [False, True]),
        _knob(
            "address_map",
            [
                "bank_group column bank stack_id row",
                "column bank_group bank stack_id row",
                "bank_group bank stack_id column row",
                "bank_group bank column stack_id row",
            ],
        ),
    )


def knobs_for(standard: DramStandard) -> tuple[Knob, ...]:
    """The knobs that a memory takes, each with the values it takes; those with one value are not there.

    A policy that a standard has no timings for is no choice."""
    found = []
    for knob in candidates():
        taken = [index for index, choice in enumerate(knob.choices) if _is_taken(standard, choice)]
        if len(taken) > 1:
            labels = tuple(knob.labels[index] for index in taken)
            found.append(Knob(knob.name, labels, tuple(knob.choices[index] for index in taken)))
    return tuple(found)


def _is_taken(standard: DramStandard, choice: Choice) -> bool:
    try:
        standard.timing(controller_of([choice]))
    except UserError:
        return False
    return True


def settings_of(choices: Sequence[Choice]) -> dict[str, Any]:
    """What some choices together set of a ControllerSpec: watermarks as requests instead of shares of the queue."""
    settings: dict[str, Any] = {}
    for choice in choices:
        settings |= choice
    default = ControllerSpec()
    queue = settings.get("write_queue", default.write_queue)
    high = settings.get("write_high", default.write_high / default.write_queue)
    low = settings.get("write_low", default.write_low / default.write_queue)
    settings["write_high"] = max(round(high * queue), 2)
    settings["write_low"] = min(max(round(low * queue), 1), settings["write_high"] - 1)
    return settings


def controller_of(choices: Sequence[Choice]) -> ControllerSpec:
    """The controller of some choices; what none of them sets is as usual. Raises UserError if they contradict."""
    try:
        return ControllerSpec.model_validate(settings_of(choices))
    except ValidationError as error:
        raise UserError(f"no controller: {error.errors()[0]['msg']}") from None
