"""The page on attacks says truly what each attack is granted, and its exact shares hold."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from fedmem.attacks.linear_layer import LinearLayer
from fedmem.contracts.attack import GRANTS, ReconstructionAttack
from fedmem.scenario import catalogue, describe
from tests.lab import digits, network, parameters, target_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "attacks.md").read_text(encoding="utf-8")
ROWS = {kind: rest.split("|") for kind, rest in re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE, flags=re.MULTILINE)}


@pytest.mark.parametrize("kind", [kind for kind in catalogue.kinds("attack") if kind in ROWS])
def test_attack_table_lists_the_declared_grants(kind: str) -> None:
    attack = catalogue.build("attack", describe.example("attack", kind))
    if isinstance(attack, ReconstructionAttack):
        always, _, where_set = ROWS[kind][0].rpartition(";") if "if set" in ROWS[kind][0] else (ROWS[kind][0], "", "")
        firm, more = (re.findall(r"`(\w+)`", part) for part in (always, where_set))
        grants = [set(one.knows) for one in _as_set(attack)]
        assert set.intersection(*grants) == set(firm)
        assert set.union(*grants) == {*firm, *more}


def _as_set(attack: Any) -> list[Any]:
    """The attack with every choice of the fields that are one of a few words."""
    hints = get_type_hints(type(attack))
    choices = {one.name: get_args(hints[one.name]) for one in fields(attack) if get_origin(hints[one.name]) is Literal}
    return [replace(attack, **dict(zip(choices, words, strict=True))) for words in product(*choices.values())]


def test_every_grant_is_explained() -> None:
    assert set(GRANTS) <= set(ROWS)


@pytest.mark.parametrize(("size", "column"), [(2, 2), (8, 4), (32, 6)])
def test_share_of_exact_examples_is_near_the_pages_value(size: int, column: int) -> None:
    (said,) = re.findall(r"^\| ReLU \|(.*)\|$", PAGE, flags=re.MULTILINE)
    exact = 0
    for i in range(8):
        rows = digits().take(np.random.default_rng(i).choice(1700, size, replace=False))
        model = network(seed=i)
        (found,) = LinearLayer().reconstruct([target_of(model, parameters(model), rows)], [np.random.default_rng(0)])
        exact += len(found.inputs) if found.distance < 1 else 0
    assert exact / (8 * size) == pytest.approx(float(said.split("|")[column - 1]), abs=0.12)
