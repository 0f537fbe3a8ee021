"""`import archsim.gym` registers the Gymnasium environment archsim/MemorySystem-v0.

    import gymnasium
    import archsim.gym

    env = gymnasium.make("archsim/MemorySystem-v0", goal="latency")

`gymnasium.make("archsim.gym:archsim/MemorySystem-v0")` does both. Raises UserError if gymnasium is missing.
"""

from archsim.config.errors import UserError

try:
    import gymnasium  # noqa: F401
except ImportError:
    raise UserError("the environment needs gymnasium", expected="pip install 'archsim[search]'") from None

from archsim.sweep.gym_env import ENV_ID, Goal, MemorySystemEnv, RewardStyle
from archsim.sweep.gym_tasks import DecodeTask, MixedTrace, Observation, ReplayTask, Task

__all__ = [
    "ENV_ID",
    "DecodeTask",
    "Goal",
    "MemorySystemEnv",
    "MixedTrace",
    "Observation",
    "ReplayTask",
    "RewardStyle",
    "Task",
]
