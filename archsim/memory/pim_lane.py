"""The lane of a channel whose banks open their rows together, and what the last command in it has left behind."""

from __future__ import annotations

from collections.abc import Callable

from archsim.kernels.pim_program import Lane
from archsim.kernels.pim_rules import PimRules
from archsim.memory.pim import PimSpec
from archsim.memory.pim_layout import ceil_div


class RowLane:
    """Commands on rows of all banks of a channel. A row stays open until the next one is needed.

    Devices with TMOD reach buffer and registers in one mode and banks in another; the lane switches where it has to."""

    def __init__(self, spec: PimSpec, rules: PimRules, lane: Lane) -> None:
        self._lane = lane
        self._spec = spec
        self._has_modes = "TMOD" in spec.commands
        self._activates = rules.banks.instances(rules.commands[rules.index("ACTAB")].targets)
        self._row_open = False
        self._register_mode = False

    def repeat(self, times: int, part: Callable[[], None]) -> None:
        """`part` so many times: once as things are, then, as it has left them, in a loop."""
        part()
        if times > 1:
            before = (self._row_open, self._register_mode)
            with self._lane.loop(times - 1):
                part()
            assert before == (self._row_open, self._register_mode)

    def close(self) -> None:
        """Close the last row, for others to use its banks."""
        self._set_mode(registers=False)
        self._close()

    def _open(self, uses: int) -> None:
        """A row of every bank, for so many commands; the one before it is closed."""
        self.close()
        self._lane.issue("ACTAB", self._activates, 0, 1, uses=uses)
        self._row_open = True

    def _write_buffer(self, columns: int) -> None:
        self._set_mode(registers=True)
        self._lane.issue("WRGB", columns)

    def _write_bias(self, outputs: int) -> None:
        """Where accumulators are not cleared by being read."""
        if "WRBIAS" in self._spec.commands:
            self._set_mode(registers=True)
            self._lane.issue("WRBIAS", outputs)

    def _multiply(self, columns: int) -> None:
        self._set_mode(registers=False)
        self._lane.issue("MACAB", columns)

    def _read_results(self, outputs: int) -> None:
        organisation = self._spec.organisation
        bursts = ceil_div(organisation.banks * self._spec.units.element_bytes, organisation.burst_bytes)
        self._set_mode(registers=True)
        self._lane.issue("RDRES", outputs * bursts)

    def _in_runs(self, keys: list, add: Callable) -> None:  # type: ignore[type-arg]
        """`add` of each key, equal neighbours as a loop."""
        at = 0
        while at < len(keys):
            same = 1
            while at + same < len(keys) and keys[at + same] == keys[at]:
                same += 1
            self.repeat(same, lambda key=keys[at]: add(key))  # type: ignore[misc]
            at += same

    def _set_mode(self, registers: bool) -> None:
        if self._has_modes and registers != self._register_mode:
            self._lane.issue("TMOD")
        self._register_mode = registers and self._has_modes

    def _close(self) -> None:
        if self._row_open:
            self._lane.issue("PREAB")
            self._row_open = False
