"""A memory system as a Gymnasium environment: an action is a whole controller, the observation what became of it.

    import gymnasium
    import archsim.gym                               # registers the environment

    env = gymnasium.make("archsim/MemorySystem-v0", goal="latency")
    observation, info = env.reset(seed=0)            # the usual controller
    observation, reward, *_, info = env.step(env.action_space.sample())

As in ArchGym (Krishnan et al., "ArchGym: An Open-Source Gymnasium for Machine Learning Assisted Architecture Design",
ISCA 2023), a step evaluates one design, and designs don't depend on each other: an episode is a number of tries.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from archsim.config.errors import UserError, listed, nearest_name
from archsim.sweep.gym_knobs import Choice
from archsim.sweep.gym_tasks import Observation, ReplayTask, Task

ENV_ID = "archsim/MemorySystem-v0"
EPISODE_STEPS = 100
TARGET_GAIN = 0.1
"""Targets, if none are given: so much better than the usual controller, as a share."""
REWARD_CAP = 1000.0
"""What ArchGym's reward, which grows without bound near the target, ends at."""

Floats = NDArray[np.float64]


class Goal(StrEnum):
    """What the reward looks at; `latency_energy` is the product of both rewards, as in ArchGym."""

    LATENCY = "latency"
    BANDWIDTH = "bandwidth"
    ENERGY = "energy"
    LATENCY_ENERGY = "latency_energy"


class RewardStyle(StrEnum):
    """How far an observation is from its target, as a reward.

    archgym   target / |target - observed|, at most 1000: a peak at the target, from either side
    ratio     target / observed (for bandwidth the other way round): better is always more, 1 at the target
    """

    ARCHGYM = "archgym"
    RATIO = "ratio"


class MemorySystemEnv(gymnasium.Env[Floats, NDArray[np.int64]]):
    """The environment.

    Action: MultiDiscrete, for each of `knobs` the index of its value. Observation: float64[4], latency in s, bandwidth
    in B/s, energy in J, share of row hits (`Observation`). A choice that is no memory system is observed as zeros, its
    reward is zero, and `info["error"]` says why.

    Args:
        task: what is measured; the mixed trace on one channel of HBM3 by default.
        goal: latency, bandwidth, energy or latency_energy.
        reward: archgym or ratio.
        targets: by name of the observation; by default 10 % better than the usual controller.

    Raises UserError for an unknown name.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012, as gymnasium has it

    def __init__(
        self,
        task: Task | None = None,
        goal: str = Goal.LATENCY,
        reward: str = RewardStyle.ARCHGYM,
        targets: Mapping[str, float] | None = None,
    ) -> None:
        self.task = task if task is not None else ReplayTask()
        self.goal = Goal(_known(goal, Goal, "goal"))
        self.style = RewardStyle(_known(reward, RewardStyle, "reward"))
        for name in targets or {}:
            _known(name, Observation._fields[:3], "target")
        self.knobs = self.task.knobs
        self.action_space = gymnasium.spaces.MultiDiscrete([len(knob) for knob in self.knobs])
        most = np.finfo(np.float64).max
        limits = np.array([most, most, most, 1.0])
        self.observation_space = gymnasium.spaces.Box(np.zeros(4), limits, dtype=np.float64)
        self._given = dict(targets or {})
        self._seen: dict[tuple[int, ...], Observation | str] = {}  # deterministic: a design is simulated once

    @property
    def usual(self) -> Observation:
        """What the usual controller does: knobs left alone."""
        found = self._measured((), ())
        if isinstance(found, str):
            raise UserError(found)
        return found

    @property
    def targets(self) -> dict[str, float]:
        """What the reward compares with."""
        usual = self.usual
        own = {
            "latency": usual.latency * (1 - TARGET_GAIN),
            "bandwidth": usual.bandwidth * (1 + TARGET_GAIN),
            "energy": usual.energy * (1 - TARGET_GAIN),
        }
        return own | self._given

    def choices(self, action: NDArray[np.int64]) -> list[Choice]:
        """What an action sets."""
        return [knob.choices[int(index)] for knob, index in zip(self.knobs, action, strict=True)]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Back to the usual controller."""
        super().reset(seed=seed)
        return np.array(self.usual), {"controller": {}}

    def step(self, action: NDArray[np.int64]) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Measure a controller. An episode never ends by itself; the registered one stops after 100 steps."""
        named = {knob.name: knob.labels[int(i)] for knob, i in zip(self.knobs, action, strict=True)}
        found = self._measured(tuple(map(int, action)), self.choices(action))
        if isinstance(found, str):
            return np.zeros(4), 0.0, False, False, {"controller": named, "error": found}
        return np.array(found), self.reward(found), False, False, {"controller": named, **found._asdict()}

    def reward(self, observed: Observation) -> float:
        """The reward of an observation."""
        names = self.goal.split("_")
        return float(np.prod([self._reward(name, getattr(observed, name)) for name in names]))

    def _reward(self, name: str, observed: float) -> float:
        target = self.targets[name]
        if self.style is RewardStyle.RATIO:
            return observed / target if name == Goal.BANDWIDTH else target / observed
        return min(target / max(abs(target - observed), target / REWARD_CAP), REWARD_CAP)

    def _measured(self, action: tuple[int, ...], choices: list[Choice] | tuple[()]) -> Observation | str:
        """The observation, or why there is none."""
        if action not in self._seen:
            try:
                self._seen[action] = self.task.measure(choices)
            except UserError as error:
                self._seen[action] = str(error)
        return self._seen[action]


def _known(name: str, names: Any, what: str) -> str:
    valid = [str(one) for one in names]
    if name not in valid:
        raise UserError(f"there is no {what} '{name}'", expected=listed(valid), nearest=nearest_name(name, valid))
    return name


if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point="archsim.sweep.gym_env:MemorySystemEnv", max_episode_steps=EPISODE_STEPS)
