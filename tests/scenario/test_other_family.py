"""Tests of `fedmem/scenario/other_family.py`."""

from __future__ import annotations

import pytest

from fedmem.contracts.families import FAMILIES, OTHER_NAMES
from fedmem.errors import ScenarioError
from fedmem.scenario.catalogue import build, kinds
from fedmem.scenario.other_family import other_family_text


@pytest.mark.parametrize("given", ["lira", {"kind": "lira"}])
def test_kind_of_another_family_is_named_with_its_place(given: object) -> None:
    with pytest.raises(ScenarioError, match="kind of attack") as caught:
        build("estimator", given)
    assert "write it as {kind: membership, attack: {kind: lira}}" in str(caught.value)
    assert build("estimator", {"kind": "membership", "attack": {"kind": "lira"}})


def test_kinds_of_the_family_and_unknown_ones_have_no_hint() -> None:
    assert other_family_text("attack", "lira") == ""
    assert other_family_text("estimator", "nothing") == ""


def message(family: str, given: object, path: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        build(family, given)
    return {problem.path: problem.message for problem in caught.value.problems}[path]


@pytest.mark.parametrize(
    ("family", "given", "path", "said"),
    [
        ("estimator", {"kind": "membership", "attack": "LiRA"}, "attack", "such as {kind: lira}, got 'LiRA'"),
        ("estimator", {"kind": "membership", "attack": "no such"}, "attack", "such as {kind: lira}"),
        ("strategy", "FedAvg", "", "such as {kind: fedavg}, got 'FedAvg'"),
        ("strategy", "my_file:Mine", "", 'such as {kind: "my_file:Mine"}'),
        ("estimator", {"kind": "memorization"}, "kind", "did you mean 'memorisation'?"),
        ("model", {"kind": "MLP"}, "kind", "did you mean 'mlp'?"),
        ("sampler", {"kind": "random"}, "kind", "did you mean 'uniform'?"),
        ("sampler", {"kind": "leaveout.LeaveFarthest"}, "kind", "behind a colon, as leaveout:LeaveFarthest"),
        ("dataset", {"kind": "csv", "file": "x.csv"}, "file", "did you mean 'path'?"),
    ],
)
def test_the_nearest_kind_or_field_that_fits_is_proposed(family: str, given: object, path: str, said: str) -> None:
    assert said in message(family, given, path)


def test_other_names_are_names_of_kinds() -> None:
    for (family, name), kind in OTHER_NAMES.items():
        assert family in FAMILIES
        assert kind in kinds(family)
        assert name not in kinds(family)
