from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_mechanism import GaussianPrivacyLoss
from scipy.stats import norm

from fedmem.errors import ComponentError
from fedmem.estimators.exposure import null_mean
from fedmem.privacy.guarantee import Guarantee
from tests.narrowing import present

PROMISES = [(0.0, 0.0), (0.0, 0.2), (1.0, 0.0), (1.0, 0.01), (3.0, 1e-5), (math.inf, 0.0)]


def guarantee(epsilon: float, delta: float = 0.0) -> Guarantee:
    return Guarantee(epsilon=epsilon, delta=delta)


@pytest.mark.parametrize(("epsilon", "delta"), PROMISES)
def test_the_bounds_agree_with_one_another(epsilon: float, delta: float) -> None:
    one, rates = guarantee(epsilon, delta), np.linspace(0, 1, 100_001)
    curve = one.tpr(rates)
    assert one.advantage == pytest.approx((curve - rates).max(), abs=1e-4)
    assert one.memorisation == one.advantage
    assert one.auc == pytest.approx((curve[1:] + curve[:-1]).mean() / 2, abs=1e-4)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0])
def test_randomised_response_reaches_every_bound(epsilon: float) -> None:
    """One bit, told rightly with probability e^epsilon / (1 + e^epsilon)."""
    told = math.exp(epsilon) / (1 + math.exp(epsilon))
    one = guarantee(epsilon)
    assert one.advantage == pytest.approx(told - (1 - told))
    assert one.tpr(1 - told) == pytest.approx(told)
    assert one.auc == pytest.approx(told * told + (1 - told) * told * 0.5 * 2)


def test_a_gaussian_stays_below_and_touches() -> None:
    mu, mechanism = 1.0, GaussianPrivacyLoss(standard_deviation=1.0)
    rates = np.linspace(1e-4, 1 - 1e-4, 999)
    real = norm.sf(norm.isf(rates) - mu)
    gaps = []
    for epsilon in np.linspace(0, 3, 31):
        bound = guarantee(epsilon, mechanism.get_delta_for_epsilon(epsilon)).tpr(rates)
        assert (real <= bound + 1e-12).all()
        gaps.append((bound - real).min())
    assert min(gaps) < 1e-6


def test_infinite_epsilon_bounds_nothing_and_zero_bounds_all() -> None:
    nothing, perfect = guarantee(math.inf), guarantee(0.0)
    assert (nothing.advantage, nothing.auc, perfect.advantage, perfect.auc) == (1, 1, 0, 0.5)
    assert nothing.tpr(np.array([0.1, 1.0])).tolist() == [1, 1]
    assert perfect.tpr(np.array([0.0, 0.25, 1.0])).tolist() == [0, 0.25, 1]
    assert perfect.exposure(100) == pytest.approx(null_mean(100))
    assert nothing.exposure(1023) == pytest.approx(10)


def test_exposure_bound_is_the_optimum_of_a_linear_program() -> None:
    """By linear programming: the law of the rank that is likely to be small, within epsilon of uniform both ways."""
    from scipy.optimize import linprog

    references, one = 9, guarantee(1.0)
    bits = np.log2(10 / np.arange(1, 11))
    # delta is 0, so the promise is about every single rank
    limits = [(math.exp(-1.0) / 10, math.exp(1.0) / 10)] * 10
    most = -present(linprog(-bits, A_eq=np.ones((1, 10)), b_eq=[1.0], bounds=limits).fun)
    assert one.exposure(references) == pytest.approx(most, rel=0.02)
    assert one.exposure(references) >= most - 1e-9


def test_group_guarantee_equals_its_formula() -> None:
    one = guarantee(0.5, 1e-3)
    assert one.of_group(1) == one
    three = one.of_group(3)
    assert three.epsilon == 1.5
    assert three.delta == pytest.approx(1e-3 * (math.exp(1.5) - 1) / (math.exp(0.5) - 1))
    assert guarantee(5.0, 0.1).of_group(10).delta == 1
    assert guarantee(math.inf, 0.0).of_group(2).delta == 0


@pytest.mark.parametrize(("epsilon", "delta"), [(-1.0, 0.0), (math.nan, 0.0), (1.0, 1.5), (1.0, -0.1)])
def test_invalid_epsilon_or_delta_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ComponentError, match="is no guarantee"):
        guarantee(epsilon, delta)
