"""Tests of `fedmem/scenario/check_probes.py`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenario.declared_helpers import refusal
from tests.tiny import TINY

RECTIFIER = {"kind": "linear_layer"}
NOISY = {"kind": "dp_fedavg", "expected_cohort_size": 3}
GUESSES: list[dict[str, Any]] = [{"kind": "informed"}, {"kind": "stationary", "attack": RECTIFIER}]


@pytest.mark.parametrize("probe", GUESSES)
def test_places_of_out_examples_need_replacement_rows(probe: dict[str, Any]) -> None:
    client = {"kind": "sgd", "lr": 0.1, "steps": 1, "batch_size": 8}
    changes: dict[str, Any] = {"probes": [{"kind": "utility"}, probe], "client": client}
    ((path, message),) = refusal(**changes, exclusion="remove")
    assert path == "probes[1]"
    assert message.startswith(f"{probe['kind']} compares with examples that are out, whose places replacement rows")
    assert "Write exclusion: replace, or leave" in message
    assert not refusal(**changes)
    assert not refusal(probes=[{"kind": "utility"}], exclusion="remove")


def test_unknown_noise_is_refused_at_the_aggregate_alone() -> None:
    both = {"observe": {"every": 1, "levels": ["local", "global"]}}
    ((path, message),) = refusal(**both, probes=[{"kind": "informed"}], strategy=NOISY)
    assert path == "probes[0].levels"
    assert "informed does not know the noise that strategy dp_fedavg adds" in message
    assert "Write levels: [local], or use a strategy without noise, such as fedavg" in message
    assert not refusal(**both, probes=[{"kind": "informed", "levels": ["local"]}], strategy=NOISY)
    assert not refusal(observe={"every": 1, "levels": ["local"]}, probes=[{"kind": "informed"}], strategy=NOISY)
    assert not refusal(**both, probes=[{"kind": "informed"}])
    assert not refusal(**both, probes=[{"kind": "utility"}], strategy=NOISY)


def test_names_that_no_injection_has_are_refused() -> None:
    kinds = ["random_pattern", "random_patern"]
    ((path, message),) = refusal(probes=[{"kind": "copying", "kinds": kinds}])
    assert path == "probes[0].kinds[1]"
    assert message == (
        "no injection is called 'random_patern' (did you mean 'random_pattern'?); choose from: random_pattern, "
        "mislabelled, typical, or leave kinds out"
    )
    assert not refusal(probes=[{"kind": "copying", "kinds": kinds[:1]}, {"kind": "copying"}])
    labelled = [*TINY["injections"][:2], {"kind": "typical", "label": "mine"}]
    assert not refusal(probes=[{"kind": "copying", "kinds": ["mine"]}], injections=labelled)
    ((path, _),) = refusal(probes=[{"kind": "copying", "kinds": ["typical"]}], injections=labelled)
    assert path == "probes[0].kinds[0]"


def test_estimators_that_name_injections_are_checked_too() -> None:
    found = dict(refusal(estimators=[{"kind": "property_inference", "kinds": ["mislabelled", "sex"]}], runs=8))
    assert found["estimators[0].kinds[1]"].startswith("no injection is called 'sex'; choose from: random_pattern")
    assert "estimators[0].kinds[0]" not in found
