"""The meeting point of simpy's event queue and the cycle-level memory: transfers in, simpy events out."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import simpy

from archsim.memory.device import Transfer
from archsim.memory.main import MainMemory


class NoProgressError(RuntimeError):
    """The watchdog: nothing can happen any more, but a component still waits. The message names it."""


class MemoryPort:
    """Runs a device's main memory in a simpy environment, up to the next completion or event, whichever is first."""

    def __init__(self, environment: simpy.Environment, device: MainMemory, name: str) -> None:
        self.device = device
        self.name = name
        self._environment = environment
        self._pending: dict[int, simpy.Event] = {}
        self._running = False

    def catch_up(self) -> None:
        """Simulate the memory (its refreshes, if nothing else) up to the environment's present."""
        tick = self.device.to_ticks(int(self._environment.now))
        if not self._pending:
            self.device.idle_until(tick)

    def submit(self, transfer: Transfer, *, gated: bool = False) -> tuple[int, simpy.Event]:
        """Start a transfer now. Its job, and an event that fires when it is done.

        The consumer of a `gated` one waits for `open_gate`."""
        self.catch_up()
        job = self.device.submit(replace(transfer, gated=gated) if gated else transfer)
        done = self._environment.event()
        self._pending[job] = done
        if not self._running:
            self._running = True
            self._environment.process(self._run())
        return job, done

    def open_gate(self, job: int) -> None:
        """Let a gated transfer's consumer start now."""
        self.device.open_gate(job)

    def _run(self) -> Generator[simpy.Event, Any, None]:
        while self._pending:
            horizon_fs = self._environment.peek()
            until = None if horizon_fs == float("inf") else self.device.to_ticks(int(horizon_fs))
            if until is not None and until <= self.device.now:
                yield self._environment.timeout(int(horizon_fs) - self._environment.now)
                continue
            completion = self.device.advance(until)
            if completion is not None:
                done = self._pending.pop(completion.job)
                delay_fs = max(0, self.device.to_fs(completion.tick) - int(self._environment.now))
                self._environment.process(self._finish(done, delay_fs))
            elif until is None:
                raise NoProgressError(f"{self.name} makes no progress: {self.device.describe_work()}")
            else:
                yield self._environment.timeout(max(0, int(horizon_fs) - self._environment.now))
        self._running = False

    def _finish(self, done: simpy.Event, delay_fs: int) -> Generator[simpy.Event, Any, None]:
        yield self._environment.timeout(delay_fs)
        done.succeed()
