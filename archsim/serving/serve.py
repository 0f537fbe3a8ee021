"""Serving a request trace on one machine: iterations of continuous batching, each an operator trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from archsim.compute.arithmetic import most_that_fits
from archsim.config.errors import UserError
from archsim.config.units import format_bytes
from archsim.energy import energy_pj, total_pj, within_limit
from archsim.engine.machine import Machine
from archsim.engine.phases import Setup, kv_storage, reserve_kv, reserve_prefix
from archsim.experiment_spec import BatchingSpec
from archsim.records import Counts, OperatorRecord, RequestRecord
from archsim.serving.batching import Scheduler
from archsim.system import SystemSpec
from archsim.workload.operators import lower_iteration
from archsim.workload.requests import Request


@dataclass(frozen=True)
class ServingOutcome:
    """All requests finished; how many iterations and scheduled tokens that took."""

    requests: tuple[RequestRecord, ...]
    iterations: int
    tokens: int


def serve(
    machine: Machine,
    setup: Setup,
    batching: BatchingSpec,
    requests: Sequence[Request],
    on_finished: Callable[[int], object] | None = None,
) -> ServingOutcome:
    """Serve `requests` to the end on a machine that holds the weights of `setup`'s model.

    The rest of the memory is KV cache: of the prefix that is in front of every request, if there is one, then of the
    requests' own tokens. `on_finished` is told after each iteration how many requests have finished.

    Raises:
        UserError: if a request can never fit the cache.
    """
    reserve_prefix(machine, setup)
    capacity = kv_token_capacity(machine, setup)
    reserve_kv(machine, setup, capacity)
    scheduler = Scheduler(requests, batching, capacity)
    iterations = tokens = 0
    while not scheduler.finished:
        iteration = scheduler.next_iteration(machine.now_fs)
        if iteration is None:
            arrival_fs = scheduler.next_arrival_fs()
            assert arrival_fs is not None  # nothing runs and nothing comes, though not all have finished
            machine.wait_until(arrival_fs)
            continue
        trace = lower_iteration(setup.model, setup.precision, machine.devices, iteration.shapes, setup.prefix)
        start_fs = machine.now_fs
        records = machine.run(trace, iteration.index)
        energy = iteration_energy_pj(records, machine.now_fs - start_fs, machine.system) * machine.devices
        scheduler.complete(iteration, machine.now_fs, energy)
        iterations += 1
        tokens += trace.tokens
        if on_finished is not None:
            on_finished(len(scheduler.records))
    return ServingOutcome(scheduler.records, iterations, tokens)


def kv_token_capacity(machine: Machine, setup: Setup) -> int:
    """Tokens that the memory left beside the weights can cache. Raises UserError if there is none left."""
    per_token = setup.model.kv_bytes_per_token(setup.precision, machine.devices)
    if machine.placement.stores:
        return _tiered_capacity(machine, setup)
    pim = machine.pim
    free = pim.free_bytes if pim is not None and pim.spec.separate else machine.placement.main.free_bytes
    if free < per_token:
        raise UserError(
            f"{_placed(setup)} leave {format_bytes(max(0, free))} for the KV cache, less than one token's",
            expected="a higher tensor_parallel, or a device with more memory",
        )
    return free // per_token


def _tiered_capacity(machine: Machine, setup: Setup) -> int:
    """The most tokens whose cache fits as the placement rules deal it to tiers. Raises UserError if none does."""

    def fits(tokens: int) -> bool:
        return machine.placement.fits(kv_storage(setup.model, setup.precision, machine.devices, tokens))

    tokens = most_that_fits(fits)
    if tokens == 0:
        raise UserError(
            f"{_placed(setup)} leave no room for one token's KV cache on the tiers that placement gives it",
            expected="a higher tensor_parallel, larger tiers, or other placement rules",
        )
    return tokens


def _placed(setup: Setup) -> str:
    """What lies in memory before requests come."""
    return "the weights and the shared prefix" if setup.prefix.tokens else "the weights"


def iteration_energy_pj(records: Sequence[OperatorRecord], elapsed_fs: int, system: SystemSpec) -> float:
    """Energy of one device over an iteration, as its board's power limit lets through."""
    counts = Counts()
    for record in records:
        counts.add(record.counts)
    power = system.device.board_power
    energy = energy_pj(counts, elapsed_fs, system.energy_table, power, system.device.tiers, system.device.pim)
    return total_pj(within_limit(energy, elapsed_fs, power))
