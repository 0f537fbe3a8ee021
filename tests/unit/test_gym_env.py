"""The Gymnasium environment: gymnasium's own checker, knobs that the kernel takes, rewards, traces and decode steps."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from small_experiment import write_phases

from archsim.commands.stats import Traffic, energy_stats
from archsim.config.errors import UserError
from archsim.gym import ENV_ID, DecodeTask, MemorySystemEnv, Observation, ReplayTask
from archsim.kernels.oracle import OracleResult, run_oracle
from archsim.kernels.oracle import Trace as OracleTrace
from archsim.kernels.timing import Count
from archsim.memory.interleave import Interleave
from archsim.memory.standard import ControllerSpec, DramStandard
from archsim.sweep.gym_knobs import Choice, Knob, controller_of, knobs_for

REQUESTS = 1000
COMMANDS = (Count.ACT, Count.RD, Count.WR, Count.REFAB, Count.REFPB)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2000 requests, a quarter of them writes: half follow one another, half go anywhere in 64 MiB."""
    draws = np.random.default_rng(7)
    address = np.where(draws.random(2000) < 0.5, np.arange(2000) * 32, draws.integers(1 << 21, size=2000) * 32)
    file = tmp_path_factory.mktemp("trace") / "mixed.npy"
    np.save(file, np.stack([address, (draws.random(2000) < 0.25).astype(np.int64)], axis=1))
    return file


def made(trace: Path, **options: object) -> MemorySystemEnv:
    env = gymnasium.make(ENV_ID, task=ReplayTask(trace=trace), **options).unwrapped
    assert isinstance(env, MemorySystemEnv)
    return env


def test_gymnasiums_own_checker_has_nothing_to_say(trace: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(made(trace))


def test_it_can_be_made_by_its_name_alone() -> None:
    env = gymnasium.make(f"archsim.gym:{ENV_ID}")
    assert env.spec is not None and env.spec.max_episode_steps == 100
    assert env.observation_space.shape == (4,)


def test_the_first_observation_is_that_of_the_usual_controller(trace: Path) -> None:
    env = made(trace)
    observation, _ = env.reset(seed=3)
    task = ReplayTask(trace=trace)
    assert tuple(observation) == task.measure([])
    assert task.measure([]) == task.measure([{"write_high": 0.75, "write_low": 0.25, "read_queue": 32}])


def test_a_step_measures_what_its_action_says(trace: Path) -> None:
    env = made(trace)
    env.reset(seed=0)
    action = np.array([len(knob) - 1 for knob in env.knobs])
    observation, reward, terminated, truncated, info = env.step(action)
    assert info["controller"] == {knob.name: knob.labels[-1] for knob in env.knobs}
    assert tuple(observation) == ReplayTask(trace=trace).measure([knob.choices[-1] for knob in env.knobs])
    assert tuple(observation) != tuple(env.usual)
    assert reward > 0 and not terminated and not truncated
    assert 0 < observation[1] < float(ReplayTask().standard.peak_bytes_per_second)


class Fixed:
    """A task with one knob and the observations of its two values; 100 ns, 10 GB/s and 1 mJ are usual."""

    knobs = (Knob("which", (0, 1), ({"which": 0}, {"which": 1})),)

    def measure(self, choices: Sequence[Choice]) -> Observation:
        if choices == [{"which": 1}]:
            raise UserError("there is no such memory")
        return Observation(80e-9, 20e9, 2e-3, 0.5) if choices else Observation(100e-9, 10e9, 1e-3, 0.5)


@pytest.mark.parametrize(
    ("goal", "reward", "expected"),
    [
        ("latency", "archgym", 90 / (90 - 80)),  # the target is 10 % below the usual 100 ns
        ("bandwidth", "archgym", 11 / (20 - 11)),
        ("energy", "archgym", 0.9 / (2 - 0.9)),
        ("latency_energy", "archgym", 90 / 10 * 0.9 / 1.1),
        ("latency", "ratio", 90 / 80),
        ("bandwidth", "ratio", 20 / 11),
        ("latency_energy", "ratio", 90 / 80 * 0.9 / 2),
    ],
)
def test_rewards_are_those_of_the_formulas(goal: str, reward: str, expected: float) -> None:
    env = MemorySystemEnv(Fixed(), goal=goal, reward=reward)
    assert env.step(np.array([0]))[1] == pytest.approx(expected)


def test_a_reward_at_its_target_is_capped() -> None:
    env = MemorySystemEnv(Fixed(), goal="latency", targets={"latency": 80e-9})
    assert env.step(np.array([0]))[1] == pytest.approx(1000)


def test_what_is_no_memory_system_earns_nothing() -> None:
    observation, reward, *_, info = MemorySystemEnv(Fixed()).step(np.array([1]))
    assert not observation.any() and reward == 0
    assert info["error"] == "there is no such memory"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"goal": "latancy"}, "mean 'latency'"),
        ({"reward": "archgim"}, "mean 'archgym'"),
        ({"targets": {"enery": 1.0}}, "mean 'energy'"),
    ],
)
def test_wrong_names_are_told(options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        MemorySystemEnv(Fixed(), **options)  # type: ignore[arg-type]


def test_every_combination_of_knobs_is_a_controller() -> None:
    standard = ReplayTask().standard
    knobs = knobs_for(standard)
    assert {"read_queue", "write_queue", "write_high", "write_low", "refresh"} <= {knob.name for knob in knobs}
    draws = np.random.default_rng(0)
    for _ in range(300):
        standard.timing(controller_of([knob.choices[draws.integers(len(knob))] for knob in knobs]))


def test_a_policy_without_its_timings_is_no_knob() -> None:
    """HBM3 has no same-bank refresh, DDR5 has; schedulers and page policies need no timings."""
    knobs = {knob.name: knob.labels for knob in knobs_for(ReplayTask().standard)}
    assert knobs["scheduler"] == ("fr_fcfs", "fr_fcfs_cap", "fcfs")
    assert knobs["page_policy"] == ("open", "closed", "adaptive")
    assert knobs["refresh"] == ("all_bank", "per_bank")
    assert {"refresh_order", "refresh_postpone", "refresh_pull_in", "starve_after", "write_forwarding"} <= knobs.keys()
    ddr5 = {knob.name: knob.labels for knob in knobs_for(ReplayTask(memory="ddr5_16gb_4800").standard)}
    assert "same_bank" in ddr5["refresh"]


@pytest.mark.parametrize(
    "answered", [["write_forwarding"], ["write_coalescing"], ["write_forwarding", "write_coalescing"]]
)
def test_what_queued_writes_answer_is_measured_as_the_oracle_does(answered: list[str], tmp_path: Path) -> None:
    draws = np.random.default_rng(11)
    address, write = draws.integers(200, size=REQUESTS) * 32, (draws.random(REQUESTS) < 0.5).astype(np.int64)
    np.save(tmp_path / "few.npy", np.stack([address, write], axis=1))
    task = ReplayTask(trace=tmp_path / "few.npy")
    knobs = {knob.name: knob for knob in task.knobs}
    choices = [knobs[name].choices[knobs[name].labels.index(True)] for name in answered]

    expected, local_write = by_oracle(task.standard, controller_of(choices), address, write)
    counts, end = expected.counts, int(expected.done.max())
    assert expected.answered.any()
    latencies = (expected.done - expected.admitted)[local_write == 0]
    seen = task.measure(choices)
    assert seen.latency == pytest.approx(latencies.mean() * float(task.standard.tick_fs) * 1e-15, rel=1e-12)
    assert seen.bandwidth == pytest.approx(REQUESTS * 32 / (end * float(task.standard.tick_fs) * 1e-15), rel=1e-12)
    rows = (counts[Count.HITS], counts[Count.MISSES], counts[Count.CONFLICTS])
    assert seen.row_hits == rows[0] / sum(rows)
    traffic = Traffic(0, 0, *(int(counts[what]) for what in COMMANDS), end)
    energy = {stat.name: stat.value for stat in energy_stats(traffic, task.standard)}["mem.energy.total"]
    assert seen.energy == pytest.approx(energy * 1e-12, rel=1e-12)
    assert tuple(seen) != tuple(task.measure([]))


def by_oracle(
    standard: DramStandard, controller: ControllerSpec, address: np.ndarray, write: np.ndarray
) -> tuple[OracleResult, np.ndarray]:
    """What the oracle makes of requests on one channel, and which of them, in its order, are writes."""
    interleave = Interleave(standard, 1, controller.address_map)
    controller = controller.model_copy(update={"address_map": interleave.local_map})
    unit, local = interleave.place(address)
    order = np.argsort(unit, kind="stable")
    offsets = np.concatenate(([0], np.cumsum(np.bincount(unit, minlength=interleave.pseudo_channels))))
    trace = OracleTrace(local[order], write[order].astype(np.int8), np.zeros(len(address), np.int64), offsets)
    bank_of, _ = standard.address_tables(controller)
    return run_oracle(standard.timing(controller), bank_of, trace), write[order]


def test_a_decode_step_with_knobs_of_the_system(tmp_path: Path) -> None:
    windows = {"system.device.stream_window": ["32 KiB", "32 MiB"]}
    task = DecodeTask(write_phases(tmp_path), more=windows)
    assert task.knobs[-1].name == "system.device.stream_window"
    env = MemorySystemEnv(task, goal="latency")
    observation, _ = env.reset(seed=0)
    assert (observation > 0).all()
    small = [0] * len(env.knobs)
    slow, fast = (env.step(np.array([*small[:-1], window]))[0] for window in (0, 1))
    assert slow[0] > fast[0], "a small window leaves the memory idle"
