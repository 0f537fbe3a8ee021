"""archsim: a cycle-level simulator of memory systems for LLM inference.

    import archsim

    result = archsim.run("experiments/llama3_70b_h200x8/experiment.yaml", {"workload.batch": 32})
    result.metrics["decode.tpot"]
    result.operators
    result.plot.roofline()

Nothing heavy is imported until it is asked for.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archsim.commands.diff import diff
    from archsim.experiment import load_experiment as load
    from archsim.results import RunResult, open_run
    from archsim.run import run
    from archsim.sweep.elasticity import Elasticities, elasticities
    from archsim.sweep.frame import open_sweep
    from archsim.sweep.run import sweep
    from archsim.sweep.search import search

__version__ = "0.1.0"

__all__ = [
    "Elasticities",
    "RunResult",
    "__version__",
    "diff",
    "elasticities",
    "load",
    "open_run",
    "open_sweep",
    "run",
    "search",
    "sweep",
]

_LAZY = {
    "diff": ("archsim.commands.diff", "diff"),
    "elasticities": ("archsim.sweep.elasticity", "elasticities"),
    "Elasticities": ("archsim.sweep.elasticity", "Elasticities"),
    "load": ("archsim.experiment", "load_experiment"),
    "open_run": ("archsim.results", "open_run"),
    "open_sweep": ("archsim.sweep.frame", "open_sweep"),
    "search": ("archsim.sweep.search", "search"),
    "RunResult": ("archsim.results", "RunResult"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'archsim' has no attribute '{name}'")
    module, attribute = _LAZY[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """`archsim.run` and `archsim.sweep` are the functions, whichever was imported first: the import system would put
    the modules of these names there."""

    @property
    def run(self) -> Any:
        return import_module("archsim.run").run

    @run.setter
    def run(self, module: ModuleType) -> None:
        pass  # the module stays where imports find it, in sys.modules

    @property
    def sweep(self) -> Any:
        return import_module("archsim.sweep.run").sweep

    @sweep.setter
    def sweep(self, module: ModuleType) -> None:
        pass


sys.modules[__name__].__class__ = _Package
