"""Tests of `docs/membership.md`."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedmem.contracts.attack import MembershipAttack, attack_declaration
from fedmem.scenario.catalogue import build, kinds
from fedmem.scenario.describe import example
from tests.attacks.membership_helpers import granted
from tests.banks import coins

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "membership.md").read_text(encoding="utf-8")


def test_page_has_every_membership_attack() -> None:
    table = PAGE[PAGE.index("## What each attack knows") : PAGE.index("## What is exact")]
    written = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    membership = {kind: build("attack", example("attack", kind)) for kind in kinds("attack")}
    scoring = {kind: attack for kind, attack in membership.items() if isinstance(attack, MembershipAttack)}
    of_one_place = {kind for kind, attack in scoring.items() if not _over_rounds(attack)}
    assert of_one_place <= written <= set(scoring)


def _over_rounds(attack: MembershipAttack) -> bool:
    declared = attack_declaration(attack)
    return bool(declared.reads_series or declared.reads_others)


def test_own_attack_of_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "my_attacks_of_the_page.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    attack = importlib.import_module("my_attacks_of_the_page").ClassMean()
    assert isinstance(attack, MembershipAttack)
    declared = attack_declaration(attack)
    assert (declared.reads, declared.needs_population, declared.reads_coins) == (("labels",), True, False)
    rng = np.random.default_rng(0)
    margin, losses = rng.normal(size=(4, 3)), rng.random((4, 10))
    whole = replace(granted(margin, coins(4, 3, rng), losses), model=np.array([0, -1, 0]))
    found = attack.scores(whole)
    assert np.isnan(found[:, 1]).all()
    assert found[2, 0] == pytest.approx(losses[2, ::2].mean() - np.logaddexp(0, -margin[2, 0]))
