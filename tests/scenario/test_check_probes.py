"""Tests of `fedmem/scenario/check_probes.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from fedmem.injections.typical import Typical
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


@dataclass(frozen=True, kw_only=True)
class AlwaysIn(Typical):
    """Examples that no coin decides about."""

    coins: ClassVar[bool | None] = False


@pytest.mark.parametrize("probe", GUESSES)
def test_examples_that_are_always_in_have_no_control(probe: dict[str, Any]) -> None:
    changes: dict[str, Any] = {"probes": [probe], "client": {"kind": "sgd", "lr": 0.1, "steps": 1, "batch_size": 8}}
    certain = {"kind": "tests.scenario.test_check_probes:AlwaysIn"}
    ((path, message),) = refusal(**changes, injections=[{"kind": "typical"}, certain])
    assert path == "injections[1].coins"
    assert f"the probe {probe['kind']} compares with examples that are out at random" in message
    assert "in in every run. Write coins: true and several runs, or leave the probe out" in message
    ((path, message),) = refusal(**changes, injections=[])
    assert path == "probes[0]"
    assert message.startswith(f"{probe['kind']} guesses audit examples, but there are none. Write an injection")
    found = dict(refusal(**changes, coins={"law": "one_of"}, exclusion="remove"))
    assert "not random inclusion by one_of" in found["probes[0]"] or "exclusion: replace" in found["probes[0]"]


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
