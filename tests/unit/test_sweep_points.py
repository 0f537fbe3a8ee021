"""A point as an experiment: what is shared between points gives what reading the file anew gives."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_experiment import write_phases

from archsim.config.errors import UserError
from archsim.experiment import load_experiment
from archsim.sweep.points import Resolver
from archsim.sweep.space import Point


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phases(tmp_path_factory.mktemp("two_layers"))


PIECES: dict[str, list[Any]] = {
    "workload.batch": [1, 8, 0, "8"],
    "workload.tensor_parallel": [1, 2, 3],
    "workload.prefill": [None, {"prompt_tokens": 64}],
    "workload.prefill.prompt_tokens": [32, 99],
    "workload.decode": [None, {"context_tokens": 7}],
    "workload.decode.context_tokens": [1, 4096, 2.5, {"value": 77, "source": "a test"}],
    "workload.precision.kv": ["fp8", "fp7"],
    "workload.limit": [3],
    "workload.model": [None, "llama-3-8b"],
    "workload": [{"batch": 3}],
    "system": ["h200x8", "nothing"],
    "system.device.power.limit": ["500 W"],
    "seed": [1],
}
CHOICES = [(path, value) for path, values in PIECES.items() for value in values]


@settings(max_examples=60)
@given(st.lists(st.lists(st.sampled_from(CHOICES), max_size=4), min_size=1, max_size=3), st.booleans())
def test_a_shared_experiment_is_as_one_read_anew(
    file: Path, changes: list[list[tuple[str, Any]]], fixed_prefill: bool
) -> None:
    fixed = {"workload.prefill": None} if fixed_prefill else {}
    resolver = Resolver(file, fixed)
    for change in changes:
        overrides = dict(change)
        resolved = resolver.resolve(Point({}, overrides))
        try:
            anew = load_experiment(file, {**fixed, **overrides})
        except UserError as error:
            assert resolved.loaded is None
            assert resolved.error == str(error)
            continue
        assert resolved.loaded is not None, resolved.error
        assert resolved.loaded.spec == anew.spec
        assert resolved.loaded.digest() == anew.digest()
        assert (resolved.loaded.model, resolved.loaded.trace) == (anew.model, anew.trace)
        for shared, single in ((resolved.loaded.loaded, anew.loaded), (resolved.loaded.system, anew.system)):
            assert shared.resolved == single.resolved
            assert list(shared.resolved) == list(single.resolved)
            assert shared.sources == single.sources
            assert shared.files == single.files


def test_a_system_is_read_once_for_points_that_differ_in_numbers(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []

    def counted(*arguments: Any) -> Any:
        read.append(arguments)
        return load_experiment(*arguments)

    monkeypatch.setattr(sys.modules["archsim.sweep.points"], "load_experiment", counted)
    resolver = Resolver(file, {"workload.prefill": None})
    keys = {
        resolver.resolve(Point({}, {"workload.batch": batch, "system.device.power.limit": limit})).key
        for limit in ("400 W", "500 W")
        for batch in range(1, 9)
    }
    assert len(keys) == 16
    assert len(read) == 2
