from __future__ import annotations

import numpy as np
import pytest

from fedmem.attacks.attack_p import AttackP
from fedmem.attacks.attack_r import AttackR
from fedmem.attacks.gap import Gap
from fedmem.attacks.label_only import LabelOnly
from fedmem.attacks.lira import Lira
from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.attacks.min_k import MinK
from fedmem.attacks.min_k_plus_plus import MinKPlusPlus
from fedmem.attacks.modified_entropy import ModifiedEntropy
from fedmem.attacks.quantile_regression import QuantileRegression
from fedmem.attacks.reference_model import ReferenceModel
from fedmem.attacks.rmia import Rmia
from fedmem.attacks.self_influence import SelfInfluence
from fedmem.attacks.shokri import Shokri
from fedmem.attacks.watson import Watson
from fedmem.contracts.attack import MembershipAttack, attack_declaration
from tests.attacks.membership_helpers import everything, granted, shuffled
from tests.banks import coins

ONE_MODEL: list[MembershipAttack] = [
    LossThreshold(),
    AttackP(),
    AttackP(by_class=True),
    Gap(),
    LabelOnly(),
    MinK(),
    MinKPlusPlus(),
    ModifiedEntropy(by_class=False),
    QuantileRegression(features=2),
    ReferenceModel(),
    ReferenceModel(by="ratio"),
    SelfInfluence(),
    SelfInfluence(layers="last"),
]
SHADOW: list[MembershipAttack] = [
    Lira(),
    Rmia(),
    Rmia(mode="offline"),
    AttackR(),
    Watson(),
    LabelOnly(calibrate=True),
    ModifiedEntropy(),
    Shokri(),
]


@pytest.mark.parametrize("attack", [*ONE_MODEL, *SHADOW], ids=repr)
def test_membership_attacks_keep_the_contract(attack: MembershipAttack) -> None:
    rng = np.random.default_rng(8)
    is_in, margin = coins(8, 9, rng), rng.normal(size=(8, 9))
    margin[2, 3] = np.nan
    population = np.logaddexp(0, rng.normal(size=(8, 60)))
    kept = margin.copy()
    whole = granted(margin, is_in, population)
    scores = attack.scores(whole)
    assert isinstance(attack, MembershipAttack)
    assert attack.knows
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(np.isnan(scores), np.isnan(margin))
    np.testing.assert_array_equal(margin, kept)
    order = rng.permutation(9).tolist()
    np.testing.assert_allclose(attack.scores(shuffled(whole, order)), scores[:, order])
    member = margin + 3 * is_in
    least = {Gap: 0.7, AttackR: 0.8}.get(type(attack), 0.9)  # few different scores
    assert everything(attack.scores(granted(member, is_in, population)), is_in) > least


@pytest.mark.parametrize("attack", [*ONE_MODEL, *SHADOW], ids=repr)
def test_only_declared_attacks_read_coins(attack: MembershipAttack) -> None:
    rng = np.random.default_rng(9)
    is_in, margin = coins(8, 9, rng), rng.normal(size=(8, 9))
    population = np.logaddexp(0, rng.normal(size=(8, 60)))
    first, second = (attack.scores(granted(margin, coin, population)) for coin in (is_in, coins(8, 9, rng)))
    assert np.array_equal(first, second) != attack_declaration(attack).reads_coins
    assert attack_declaration(attack).reads_coins == (attack in SHADOW)


@pytest.mark.parametrize("attack", ONE_MODEL, ids=repr)
def test_one_model_is_scored_without_others(attack: MembershipAttack) -> None:
    rng = np.random.default_rng(10)
    is_in, margin = coins(4, 9, rng), rng.normal(size=(4, 9))
    population = np.logaddexp(0, rng.normal(size=(4, 60)))
    together = attack.scores(granted(margin, is_in, population))
    for run in range(4):
        alone = attack.scores(granted(margin[run : run + 1], is_in[run : run + 1], population[run : run + 1]))
        np.testing.assert_allclose(alone[0], together[run])


@pytest.mark.parametrize("attack", [*ONE_MODEL, *SHADOW], ids=repr)
def test_known_nulls_are_chance_without_memorisation(attack: MembershipAttack) -> None:
    """Runs that differ, examples that differ, skewed losses, and coins that decide nothing."""
    if attack_declaration(attack).null_auc is None:
        return
    rng, areas = np.random.default_rng(11), []
    for _ in range(30):
        is_in = coins(8, 12, rng)
        spread = np.exp(rng.normal(size=12))
        margin = spread * rng.normal(size=(8, 12)) + rng.normal(size=(8, 1)) - 2
        population = np.logaddexp(0, rng.normal(size=(8, 60)))
        areas.append(everything(attack.scores(granted(margin, is_in, population)), is_in))
    assert abs(np.mean(areas) - 0.5) < 4 * np.std(areas) / np.sqrt(30)
