"""Tests of `fedmem/federation/density_checks.py`: each part that needs labels is refused, with what can be used."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.federation import build
from fedmem.guards.guarding import PartError
from tests.tiny import tiny

UNLABELLED: dict[str, Any] = {
    "dataset": {"kind": "unlabelled", "dataset": {"kind": "digits"}},
    "model": {"kind": "independent_pixels"},
    "injections": [{"kind": "typical", "per_client": 1}, {"kind": "random_pattern", "per_client": 1}],
    "estimators": [
        {"kind": "density_memorisation"},
        {"kind": "exposure"},
        {"kind": "membership", "attack": {"kind": "loss_threshold"}},
    ],
    "signals": [{"kind": "grad_norm"}],
    "probes": [{"kind": "utility"}],
}


PATTERNS = [{"kind": "random_pattern", "per_client": 1}]


def problems(**changes: Any) -> dict[str, str]:
    return {problem.path: problem.message for problem in build.check(tiny(**{**UNLABELLED, **changes}))}


def test_parts_that_declare_densities_have_no_problems() -> None:
    assert problems() == {}


@pytest.mark.parametrize(
    ("changes", "path", "suitable"),
    [
        ({"model": {"kind": "mlp"}}, "model.kind", "predicts some; choose from: "),
        ({"injections": [*PATTERNS, {"kind": "mislabelled"}]}, "injections[1].kind", "typical"),
        ({"signals": [{"kind": "entropy"}]}, "signals[0].kind", "grad_norm"),
        ({"probes": [{"kind": "client_gap"}]}, "probes[0].kind", "utility"),
        ({"estimators": [{"kind": "memorisation"}]}, "estimators[0].kind", "density_memorisation"),
        (
            {"estimators": [{"kind": "membership", "attack": {"kind": "gap"}}]},
            "estimators[0].attack.kind",
            "attack_r, lira, loss_threshold, nearest_sample",
        ),
        ({"observe": {"every": 2, "test": {"precision": "float32"}}}, "observe.test.precision", "write float64"),
        ({"client_shards": 2}, "client_shards", "leave it out"),
        (
            {"client": {"kind": "selective", "by": "el2n", "share": 0.1, "lr": 0.1}},
            "client.by",
            "use by: loss",
        ),
        (
            {"dataset": {"kind": "unlabelled", "dataset": {"kind": "digits"}, "threshold": None}},
            "model.kind",
            "Its density would not sum to 1; write threshold: 0.5",
        ),
    ],
)
def test_parts_that_need_labels_are_refused(changes: dict[str, Any], path: str, suitable: str) -> None:
    found = problems(**changes)
    assert set(found) == {path}
    assert suitable in found[path]


def test_models_of_densities_refuse_labels() -> None:
    found = problems(dataset={"kind": "digits"})
    assert "write dataset: {kind: unlabelled, dataset: {kind: digits}}" in found["model.kind"]


def test_examples_that_are_not_binary_are_refused() -> None:
    with pytest.raises(PartError, match="the data are binary: each value should be 0 or 1"):
        problems(injections=[{"kind": "random_pattern", "values": "uniform"}])
