"""Tests of `fedmem/injections/privacy_poison.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.audit_set import InjectionPlan
from fedmem.contracts.reserve import Reserve
from fedmem.errors import ComponentError
from fedmem.injections.privacy_poison import PrivacyPoison
from fedmem.injections.typical import Typical
from tests.injections.atypical_helpers import BASE, RESERVE, SPACE, plan
from tests.narrowing import present

TARGETS = plan(Typical(per_client=4))
"""Four of each of three clients."""


def poison(injection: PrivacyPoison, targets: InjectionPlan = TARGETS, seed: int = 0) -> InjectionPlan:
    return injection.plan_against(targets, BASE, Reserve(RESERVE), SPACE, np.random.default_rng(seed))


def test_poison_has_the_inputs_of_its_target_and_another_label() -> None:
    planned = poison(PrivacyPoison(clients=(0, 2), per_client=3, copies=5, stop=2))
    aims = present(planned.aims_at)
    np.testing.assert_array_equal(planned.examples.inputs, TARGETS.examples.inputs[aims])
    assert (planned.examples.targets != TARGETS.examples.targets[aims]).all()
    assert planned.owner.tolist() == [0, 0, 0, 2, 2, 2]
    assert (planned.owner != TARGETS.owner[aims]).all()
    assert len(set(aims.tolist())) == 6, "one poison for each target"
    assert (planned.copies.tolist(), planned.stop) == ([5] * 6, 2)
    assert (planned.examples.ids < 0).all()


def test_labels_and_targets_are_drawn() -> None:
    draws = [poison(PrivacyPoison(per_client=8), seed=seed) for seed in range(60)]
    steps = np.concatenate(
        [(one.examples.targets - TARGETS.examples.targets[present(one.aims_at)]) % 4 for one in draws]
    )
    assert np.bincount(steps, minlength=4)[1:].min() > 120, "each other label is drawn in a third of 480"
    few = [present(poison(PrivacyPoison(per_client=2), seed=seed).aims_at) for seed in range(60)]
    assert set(np.concatenate(few).tolist()) == set(range(4, 12))


def test_every_target_is_reached_wherever_that_is_possible() -> None:
    everybody = poison(PrivacyPoison(clients="all", per_client=4))
    assert sorted(present(everybody.aims_at).tolist()) == list(range(12))
    with pytest.raises(ComponentError, match="9 poison rows are wanted, but attackers can aim at 8 of the 12") as error:
        poison(PrivacyPoison(per_client=9))
    assert error.value.path == "injections.per_client"
    shared = replace(TARGETS, copies=np.full(12, 2, np.int32), owners=np.repeat(TARGETS.owner, 2))
    present(shared.owners)[8:24:2] = 0  # client 0 holds a copy of eight targets of others
    with pytest.raises(ComponentError, match="can aim at 0 of the 12"):
        poison(PrivacyPoison(per_client=1), shared)


def test_what_cannot_be_poisoned_is_refused() -> None:
    with pytest.raises(ComponentError, match="one class only"):
        PrivacyPoison().plan_against(
            TARGETS, BASE, Reserve(RESERVE), replace(SPACE, num_classes=1), np.random.default_rng(0)
        )
    with pytest.raises(ComponentError, match="planned against the examples of another"):
        plan(PrivacyPoison())
