"""Tests of `fedmem/scenario/check_normalisation.py`."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.errors import ScenarioError
from tests.normalised import normed

PRIVATE: dict[str, Any] = {"kind": "dp_sgd", "clip": 1.0, "noise_multiplier": 1.0, "batch_size": 8}


@pytest.mark.parametrize(
    ("kind", "changes", "path", "text"),
    [
        ("averaged", {"client": PRIVATE, "privacy": {"delta": 1e-3}}, "norm.kind", "clips the gradients of single"),
        ("local", {"client": PRIVATE, "privacy": {"delta": 1e-3}}, "norm.kind", "clips the gradients of single"),
        ("averaged", {"defences": [{"kind": "clip", "norm": 1.0}]}, "norm.kind", "leave undefended"),
        ("averaged", {"speed": {"executor": "stacked"}}, "speed.executor", "are padded"),
        ("local", {"central": "shuffled"}, "norm.kind", "use averaged"),
        (
            "averaged",
            {"probes": [{"kind": "leakage", "attack": {"kind": "inverting_gradients"}}]},
            "probes[0]",
            "as the gradient of its examples",
        ),
        ("local", {"observe": {"levels": ["sum"], "sums": [2]}}, "observe.levels[0]", "predicts nothing"),
    ],
)
def test_what_a_policy_cannot_be_combined_with(kind: str, changes: dict[str, Any], path: str, text: str) -> None:
    with pytest.raises(ScenarioError) as error:
        normed(kind, **changes)
    found = [problem for problem in error.value.problems if problem.path == path]
    assert found
    assert text in found[0].message


@pytest.mark.parametrize("kind", ["averaged", "local"])
def test_no_guarantee_of_privacy_with_statistics(kind: str) -> None:
    strategy = {"kind": "dp_fedavg", "clip": 1.0, "noise_multiplier": 1.0}
    with pytest.raises(ScenarioError, match="guarantees privacy"):
        normed(kind, strategy=strategy, sampler={"kind": "poisson", "expected": 1})
