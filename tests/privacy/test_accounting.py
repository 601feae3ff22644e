from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from dp_accounting import mechanism_calibration
from dp_accounting.rdp import compute_epsilon
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import log_ndtr
from scipy.stats import norm

from fedmem.errors import ComponentError
from fedmem.privacy.accounting import (
    LARGEST,
    Adjacency,
    Releases,
    Sampling,
    gaussian_epsilon,
    guarantee_of,
    individual_epsilon,
    noise_for,
)

# delta 1e-5: clients, cohort, rounds, noise multiplier, and epsilon by Poisson PLD and RDP, by cohorts of a fixed size
# with replace by RDP, and without amplification; then what cohorts of a fixed size have at least with zero_out, by an
# explicit pair: all others send -1, and the unit 1 or nothing
PUBLISHED = [
    (10, 1, 1, 1.0, None, None, None, None, 3.747),
    (100, 1, 1, 1.0, None, None, None, None, 2.398),
    (100, 10, 10, 1.0, None, None, None, None, 7.107),
    (100, 10, 50, 1.0, 5.15, 5.89, 47.0, 54.4, 12.81),
    (1000, 20, 100, 1.0, 1.43, 1.84, 14.4, 91.8, 7.060),
    (1000, 50, 200, 0.8, 7.70, 8.74, 265.8, 230.7, 25.51),
    (100, 100, 20, 2.0, 11.5, 12.3, 30.1, 11.5, 11.48),
    (10, 5, 20, 1.0, 15.1, 16.6, 77.0, 28.4, 19.31),
]


def releases(**fields: Any) -> Releases:
    return Releases(
        **{"noise_multiplier": 1.0, "sampling": "everyone", "count": 10, "delta": 1e-5, "unit": "client", **fields}
    )


@pytest.mark.parametrize(("clients", "cohort", "count", "z", "pld", "rdp", "replaced", "alone", "least"), PUBLISHED)
def test_bounds_reproduce_published_values(
    clients: int,
    cohort: int,
    count: int,
    z: float,
    pld: float | None,
    rdp: float | None,
    replaced: float | None,
    alone: float | None,
    least: float,
) -> None:
    poisson = releases(noise_multiplier=z, sampling="poisson", rate=cohort / clients, count=count)
    fixed = replace(poisson, sampling="fixed_size", adjacency="zero_out")
    other = replace(fixed, adjacency="replace")
    if pld is not None:
        found = guarantee_of(poisson).bounds
        assert found["pld"] == pytest.approx(pld, rel=0.02)
        assert found["rdp"] == pytest.approx(rdp, rel=0.02)
        assert found["prv"] == pytest.approx(pld, rel=0.02)
        assert guarantee_of(other, "rdp").epsilon == pytest.approx(replaced, rel=0.02)
        assert guarantee_of(poisson, "gaussian").epsilon == pytest.approx(alone, rel=0.02)
    assert least <= guarantee_of(fixed).epsilon <= least * (1.001 if count == 1 else 1.04)
    # the order of the two neighbours and what else others send hardly matters to the bound, but replace does
    assert guarantee_of(fixed).epsilon <= guarantee_of(other).epsilon


def test_every_bound_of_cohorts_of_a_fixed_size_holds() -> None:
    """Also where another one is the smallest: none may rest on the unit moving a sum by one clip."""
    for clients, cohort, count, z, *_, least in PUBLISHED:
        fixed = releases(
            noise_multiplier=z, sampling="fixed_size", rate=cohort / clients, count=count, adjacency="zero_out"
        )
        assert min(guarantee_of(fixed).bounds.values()) >= least
        assert guarantee_of(fixed, "rdp").epsilon == guarantee_of(replace(fixed, adjacency="replace"), "rdp").epsilon


def test_guarantee_is_the_smallest_valid_bound() -> None:
    loose = releases(noise_multiplier=0.8, sampling="fixed_size", rate=0.05, count=200, adjacency="zero_out")
    assert guarantee_of(loose).accountant == "pld"
    # without drawing the exact value is that of the normal distribution
    assert guarantee_of(replace(loose, rate=1.0)).accountant == "gaussian"
    assert guarantee_of(replace(loose, adjacency="replace")).epsilon > guarantee_of(loose).epsilon
    for one in (loose, replace(loose, adjacency="replace")):
        assert guarantee_of(one).epsilon == min(guarantee_of(one).bounds.values())


def test_one_release_by_adjacency() -> None:
    one = releases(count=1)
    assert guarantee_of(one).epsilon == pytest.approx(4.38, abs=0.01)
    assert guarantee_of(replace(one, adjacency="zero_out")).epsilon == guarantee_of(one).epsilon
    assert guarantee_of(replace(one, adjacency="replace")).epsilon == pytest.approx(10.0, abs=0.01)


def test_composition_of_gaussians_is_one_with_less_noise() -> None:
    many, one = releases(noise_multiplier=3.0, count=9), releases(noise_multiplier=1.0, count=1)
    for accountant in one.accountants:
        assert guarantee_of(many, accountant).epsilon == pytest.approx(guarantee_of(one, accountant).epsilon, rel=1e-9)


def test_without_drawing_poisson_has_no_amplification() -> None:
    everyone = releases(noise_multiplier=2.0, count=20)
    drawn = replace(everyone, sampling="poisson", rate=1.0)
    assert guarantee_of(drawn, "pld").epsilon == pytest.approx(guarantee_of(everyone, "gaussian").epsilon, rel=1e-3)
    assert guarantee_of(drawn, "rdp").epsilon == pytest.approx(guarantee_of(everyone, "rdp").epsilon, rel=1e-6)
    both = [replace(one, adjacency="replace") for one in (drawn, everyone)]
    assert guarantee_of(both[0], "pld").epsilon == pytest.approx(guarantee_of(both[1], "gaussian").epsilon, rel=1e-3)
    fixed = replace(everyone, sampling="fixed_size", rate=1.0, adjacency="zero_out")
    assert guarantee_of(fixed).epsilon == pytest.approx(guarantee_of(everyone).epsilon, rel=1e-6)


@pytest.mark.parametrize("sampling", ["poisson", "fixed_size"])
def test_more_rounds_more_of_a_part_and_less_noise_cost_more(sampling: str) -> None:
    base = releases(sampling=sampling, rate=0.1, count=20, adjacency="zero_out")
    worse = [replace(base, count=40), replace(base, rate=0.2), replace(base, noise_multiplier=0.7)]
    worse += [replace(base, delta=1e-7), replace(base, adjacency="replace")]
    for other in worse:
        assert guarantee_of(other).epsilon > guarantee_of(base).epsilon
    assert guarantee_of(replace(base, noise_multiplier=1e5)).epsilon < 1e-3


def test_no_release_has_epsilon_0_and_no_noise_infinity() -> None:
    poisson = releases(sampling="poisson", rate=0.1)
    for one in (releases(), poisson, replace(poisson, sampling="fixed_size", adjacency="zero_out")):
        assert guarantee_of(replace(one, count=0)).epsilon == 0
        assert guarantee_of(replace(one, noise_multiplier=0)).epsilon == math.inf


def test_opacus_is_skipped_at_very_large_epsilon() -> None:
    hopeless = releases(noise_multiplier=0.2, sampling="poisson", rate=0.9, count=500)
    found = guarantee_of(hopeless)
    assert found.epsilon > LARGEST
    assert set(found.bounds) == {"rdp", "pld", "gaussian"}
    with pytest.raises(ComponentError, match=r"prv is not asked where epsilon is above 64"):
        guarantee_of(hopeless, "prv")


def test_cohorts_of_a_fixed_size_have_no_poisson_accountant() -> None:
    fixed = releases(sampling="fixed_size", rate=0.1, adjacency="zero_out")
    with pytest.raises(ComponentError, match=r"assumes Poisson sampling.*use one of: rdp, pld, gaussian.*poisson"):
        guarantee_of(fixed, "prv")


def test_bounds_that_are_not_known_are_refused() -> None:
    with pytest.raises(ComponentError, match="add_remove with cohorts of a fixed size is not defined"):
        releases(sampling="fixed_size", rate=0.1)
    with pytest.raises(ComponentError, match="not for adjacency replace; use one of: pld, gaussian"):
        guarantee_of(releases(sampling="poisson", rate=0.1, adjacency="replace"), "rdp")
    with pytest.raises(ComponentError, match="with everyone gaussian is exact"):
        guarantee_of(releases(), "pld")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"noise_multiplier": -1.0}, "noise_multiplier: -1.0 is not possible; it must be at least 0"),
        ({"noise_multiplier": math.nan}, "noise_multiplier: nan is not possible"),
        ({"sampling": "poisson", "rate": 0.0}, "rate: 0.0 is not possible"),
        ({"sampling": "poisson", "rate": 1.1}, "rate: 1.1 is not possible"),
        ({"rate": 0.5}, "with sampling everyone, where it is 1"),
        ({"count": -1}, "count: -1"),
        ({"delta": 0.0}, "delta: 0.0"),
        ({"delta": 1.0}, "delta: 1.0"),
    ],
)
def test_impossible_numbers_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        releases(**fields)


SAMPLED = [
    ("poisson", "add_remove"),
    ("poisson", "replace"),
    ("fixed_size", "zero_out"),
    ("fixed_size", "replace"),
]


def is_smallest(target: float, wanted: Releases) -> bool:
    """Whether the noise for a target meets it, and a thousandth less does not."""
    z = noise_for(target, wanted)
    less = guarantee_of(replace(wanted, noise_multiplier=z * 0.999)).epsilon
    return guarantee_of(replace(wanted, noise_multiplier=z)).epsilon <= target < less


@pytest.mark.parametrize(("sampling", "adjacency"), SAMPLED)
@pytest.mark.parametrize(("rate", "count", "target"), [(0.1, 50, 8.0), (0.01, 200, 0.5)])
def test_the_noise_for_a_target_is_the_smallest(
    sampling: str, adjacency: str, rate: float, count: int, target: float
) -> None:
    assert is_smallest(target, releases(sampling=sampling, adjacency=adjacency, rate=rate, count=count))


@pytest.mark.parametrize("adjacency", ["add_remove", "zero_out", "replace"])
def test_the_noise_for_everyone_is_the_smallest(adjacency: str) -> None:
    for sampling in ("everyone", "tree"):
        for count in (1, 50):
            for target in (0.1, 8.0, 500.0):
                assert is_smallest(target, releases(sampling=sampling, adjacency=adjacency, count=count))


@pytest.mark.parametrize("off", [-5e-3, -1e-5, 0.0])
def test_noise_reaches_the_target_even_if_calibration_misses_it(off: float, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrate = mechanism_calibration.calibrate_dp_mechanism
    monkeypatch.setattr(
        mechanism_calibration, "calibrate_dp_mechanism", lambda *given, **named: calibrate(*given, **named) + off
    )
    noise = noise_for(2.0, releases(count=20))
    assert guarantee_of(releases(count=20, noise_multiplier=noise)).epsilon <= 2.0


@pytest.mark.nightly
@pytest.mark.parametrize(("sampling", "adjacency"), SAMPLED)
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.6])
@pytest.mark.parametrize("count", [1, 50, 1000])
def test_the_noise_for_a_target_is_the_smallest_on_a_grid(
    sampling: str, adjacency: str, rate: float, count: int
) -> None:
    for target in (0.5, 8.0, 60.0, 200.0):
        assert is_smallest(target, releases(sampling=sampling, adjacency=adjacency, rate=rate, count=count))


def test_poisson_amplification_holds_under_replace() -> None:
    """The normal distribution alone proves 159 here; that must not keep loss distributions from being asked."""
    drawn = releases(sampling="poisson", rate=0.1, count=50, adjacency="replace")
    assert guarantee_of(drawn, "gaussian").epsilon > 150
    assert guarantee_of(drawn).epsilon == pytest.approx(7.19, abs=0.01)
    assert noise_for(8.0, drawn) == pytest.approx(0.933, abs=0.001)


def test_targets_out_of_reach_are_errors() -> None:
    assert noise_for(1.0, releases(count=0)) == 0
    for target in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ComponentError, match="it must be above 0"):
            noise_for(target, releases())
    with pytest.raises(ComponentError, match="met by no noise up to 1e6 clips"):
        noise_for(1e-9, releases(delta=1e-12))


def test_no_epsilon_is_negative() -> None:
    """The bound of Opacus was, -0.09 here, where delta covers all that is lost."""
    little = Releases(noise_multiplier=8.0, sampling="poisson", rate=0.5, count=2, delta=0.1, unit="client")
    assert guarantee_of(little, "prv").epsilon == guarantee_of(little).epsilon == 0.0


def test_a_rate_of_less_than_one_in_a_billion_is_not_zero() -> None:
    rare = Releases(
        noise_multiplier=0.5,
        sampling="fixed_size",
        rate=1e-10,
        count=1000,
        delta=1e-12,
        unit="client",
        adjacency="replace",
    )
    # one release in 10^7 has the unit at all, and then four deviations away: delta at 0 is about 10^-7 per run
    assert guarantee_of(rare).epsilon > 1.0


def delta_of(epsilon: float, mu: float) -> float:
    """The closed form of Balle and Wang (2018), in logarithms."""
    first, second = float(log_ndtr(mu / 2 - epsilon / mu)), float(log_ndtr(-mu / 2 - epsilon / mu))
    return math.exp(first) * -math.expm1(min(epsilon + second - first, 0.0))


def test_gaussian_epsilon_inverts_the_integral_of_the_excess() -> None:
    def excess(x: float, epsilon: float, mu: float) -> float:
        return max(norm.pdf(x, mu) - math.exp(epsilon) * norm.pdf(x), 0.0)

    for epsilon, mu in [(0.1, 1.0), (1.0, 0.5), (3.0, 2.0)]:
        edge = epsilon / mu + mu / 2
        delta = quad(excess, edge, edge + 20, args=(epsilon, mu), epsabs=1e-13)[0]
        assert gaussian_epsilon(mu, delta) == pytest.approx(epsilon, abs=1e-8)


@pytest.mark.parametrize("mu", [1e-6, 1e-3, 0.1, 1.0, 30.0, 1e4])
@pytest.mark.filterwarnings("error")
def test_gaussian_epsilon_equals_the_closed_form(mu: float) -> None:
    for delta in (1e-100, 1e-30, 1e-15, 1e-5, 0.3):
        if delta_of(0.0, mu) <= delta:
            assert gaussian_epsilon(mu, delta) == 0
            continue
        most = mu**2 / 2 + mu * math.sqrt(2 * math.log(1 / delta)) + 1e-9
        expected = brentq(lambda epsilon, delta=delta: delta_of(epsilon, mu) - delta, 0.0, most, xtol=1e-13)
        assert gaussian_epsilon(mu, delta) == pytest.approx(expected, rel=1e-11, abs=1e-11)


def test_gaussian_in_the_tails() -> None:
    assert gaussian_epsilon(0.0, 1e-5) == 0
    assert gaussian_epsilon(1e-6, 1e-5) == 0
    assert gaussian_epsilon(math.inf, 1e-5) == math.inf
    for mu, delta in [(0.1, 1e-30), (30.0, 1e-15), (1.0, 0.3)]:
        assert delta_of(gaussian_epsilon(mu, delta), mu) == pytest.approx(delta, rel=1e-6)


def test_individual_epsilon_at_the_clip_is_that_of_everyone() -> None:
    norms = np.array([[5.0, 0.5, 0.0], [5.0, np.nan, 0.0], [5.0, 0.5, np.nan]])
    found = individual_epsilon(norms, noise_multiplier=2.0, clip=5.0, delta=1e-5)
    assert found[0] == pytest.approx(guarantee_of(releases(noise_multiplier=2.0, count=3), "rdp").epsilon, rel=1e-6)
    assert found[2] == 0
    # a tenth of the clip, twice: by hand at every order
    orders = np.array([1.1, 2.0, 5.0, 20.0, 63.0, 256.0, 1024.0])
    by_hand = compute_epsilon(orders, orders * 2 * 0.1**2 / (2 * 2.0**2), 1e-5)[0]
    assert found[1] == pytest.approx(by_hand, rel=0.05)
    assert 0 < found[1] < found[0] / 5


def test_individual_epsilon_is_clipped_and_needs_noise() -> None:
    far, near = (individual_epsilon(np.array([[norm]]), 1.0, 1.0, 1e-5)[0] for norm in (9.0, 1.0))
    assert far == near
    assert individual_epsilon(np.array([[1.0, 0.0]]), 0.0, 1.0, 1e-5).tolist() == [math.inf, 0.0]
    assert individual_epsilon(np.empty((0, 2)), 1.0, 1.0, 1e-5).tolist() == [0.0, 0.0]


def epsilon_of(sampling: Sampling, **fields: Any) -> float:
    adjacency: Adjacency = "zero_out" if sampling == "fixed_size" else "add_remove"
    return guarantee_of(Releases(sampling=sampling, delta=1e-5, unit="client", adjacency=adjacency, **fields)).epsilon


@pytest.mark.parametrize(("sampling", "rate"), [("poisson", 0.1), ("fixed_size", 0.1), ("everyone", 1.0)])
def test_noise_beyond_the_libraries_range_gives_a_bound(sampling: Sampling, rate: float) -> None:
    much, most = (epsilon_of(sampling, noise_multiplier=z, rate=rate, count=10) for z in (1e6, 1e300))
    assert 0 <= most == much < 1e-3


@pytest.mark.parametrize("sampling", ["poisson", "fixed_size"])
@pytest.mark.parametrize("rate", [1e-12, 1e-10, 1e-8])
def test_a_rate_at_which_nothing_is_lost_is_a_bound_and_no_error(sampling: Sampling, rate: float) -> None:
    assert 0 <= epsilon_of(sampling, noise_multiplier=1.0, rate=rate, count=50) < 1e-3
