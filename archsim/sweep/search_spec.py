"""What a user writes to have the best of a space looked for: `kind: search`, or `search:` in an experiment.

kind: search
experiment: llama3_70b_h200x8
set: {workload.prefill: null}
axes:
  workload.batch: {from: 1, to: 64, scale: log}
  system.device.memory.stacks: [4, 5, 6]
quantities:
  area: {expression: 121 * system.device.memory.stacks, unit: mm2}
objectives: [decode.throughput, decode.energy_per_token]
constraints: [decode.power <= 600 W, decode.tpot <= 30 ms]
sampler: nsga2
trials: 200
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from archsim.config.errors import UserError
from archsim.config.schema import Spec
from archsim.config.units import PositiveInt
from archsim.metrics import HIGHER, NEUTRAL, definition_of
from archsim.sweep.expressions import Expression
from archsim.sweep.facts import Constraint, Facts, check_names, is_metric
from archsim.sweep.spec import DerivedSpec, SpaceSpec

NSGA2_POPULATION = 50
"""Optuna's default."""
GENETIC_POPULATION = 20
"""Of the baseline: small, so that it has generations enough to learn from in a few hundred trials."""


class SamplerName(StrEnum):
    """Who chooses the next point."""

    RANDOM = "random"  # evenly over the space, whatever has been found
    TPE = "tpe"  # near the good points, by a density estimate of good and bad ones
    NSGA2 = "nsga2"  # evolution: the best by rank and crowding have children; any number of objectives
    GENETIC = "genetic"  # a plain genetic algorithm for one objective, with a small population


class Direction(StrEnum):
    """Which way an objective is better."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


class ObjectiveSpec(Spec):
    """What to make small or large: a metric, a quantity or a path of the experiment.

    Metrics know which way is better; of anything else it has to be said."""

    value: str
    direction: Direction | None = None

    def resolved_direction(self) -> Direction:
        """The direction written, else the metric's own. Raises UserError if there is neither."""
        if self.direction is not None:
            return self.direction
        better = definition_of(self.value).better if is_metric(self.value) else NEUTRAL
        if better == NEUTRAL:
            raise UserError(
                f"of two values of '{self.value}' neither is better by itself",
                expected=f"{{value: {self.value}, direction: minimize}}, or maximize",
            )
        return Direction.MAXIMIZE if better == HIGHER else Direction.MINIMIZE


class SearchSpec(SpaceSpec):
    """A space around an experiment, what is wanted of its points, and how to look for it."""

    kind: Literal["search"] = "search"
    objectives: Annotated[
        tuple[str | ObjectiveSpec, ...], Field(description="what to make small or large; several give a Pareto front")
    ]
    constraints: Annotated[tuple[str, ...], Field(description="'decode.power <= 600 W': what has to hold")] = ()
    quantities: Annotated[
        dict[str, str | DerivedSpec],
        Field(default_factory=dict, description="name -> expression over metrics and values of the experiment"),
    ]
    sampler: Annotated[SamplerName, Field(description="who chooses the next point")] = SamplerName.TPE
    population: Annotated[int | None, Field(ge=2, description="of a generation, for nsga2 and genetic")] = None
    trials: Annotated[PositiveInt, Field(description="points to try, failed ones included")] = 100
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if not self.objectives:
            raise UserError("a search needs objectives", expected="objectives: [decode.tpot]")
        names = [goal.value for goal in self.goals()]
        if len(set(names)) < len(names):
            raise UserError("an objective stands twice")
        if self.sampler is SamplerName.GENETIC and len(names) > 1:
            raise UserError(f"the genetic baseline takes one objective, not {len(names)}", expected="sampler: nsga2")
        if self.population is not None and self.sampler not in (SamplerName.NSGA2, SamplerName.GENETIC):
            raise UserError(f"sampler {self.sampler} has no population", expected="nsga2 or genetic, or no population")
        if overlap := self.quantities.keys() & (self.axes.keys() | self.derived.keys()):
            raise UserError(f"'{min(overlap)}' is an axis and a quantity")
        self._check_quantities()
        for text in self.constraints:
            Constraint(text)
        return self

    def goals(self) -> tuple[ObjectiveSpec, ...]:
        """The objectives, those written as a mere name included."""
        return tuple(ObjectiveSpec(value=said) if isinstance(said, str) else said for said in self.objectives)

    def measured(self) -> dict[str, DerivedSpec]:
        """The quantities, those written as a mere expression included."""
        return {
            name: DerivedSpec(expression=said) if isinstance(said, str) else said
            for name, said in self.quantities.items()
        }

    def limits(self) -> tuple[Constraint, ...]:
        """The constraints, parsed."""
        return tuple(Constraint(text) for text in self.constraints)

    def check_against(self, facts: Facts) -> None:
        """Raise UserError if an objective, constraint or quantity names what there is not. `facts`: of the experiment
        itself, without metrics."""
        for name, quantity in self.measured().items():
            check_names(f"quantities.{name}", Expression(quantity.expression).names, facts)
        for goal in self.goals():
            check_names("objectives", frozenset([goal.value]), facts)
            goal.resolved_direction()
        for limit in self.limits():
            limit.check(facts)

    def _check_quantities(self) -> None:
        """A quantity may speak of those above it."""
        later = list(self.quantities)
        for name, quantity in self.measured().items():
            names = Expression(quantity.expression).names
            if ahead := [other for other in later if other in names]:
                raise UserError(f"quantities.{name} speaks of '{ahead[0]}'", expected="quantities further up")
            later.remove(name)
