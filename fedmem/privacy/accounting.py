"""Privacy accounting: epsilon and delta of repeated Gaussian releases, and the noise for a guarantee.

A release is a sum of contributions, each clipped to norm S, plus Gaussian noise of standard deviation z S that is drawn
once. The contributors are drawn again for every release. The adversary sees all releases, but not the contributors.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, Literal

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.errors import ComponentError
from fedmem.privacy.loss_profiles import Pair, composed_epsilon, profile

Sampling = Literal["poisson", "fixed_size", "everyone", "tree"]
Unit = Literal["record", "client"]
Adjacency = Literal["add_remove", "zero_out", "replace"]
Accountant = Literal["rdp", "prv", "pld", "gaussian"]

LARGEST = 64.0
"""Above this an epsilon gives no protection: loss distributions keep to a coarse grid there, without Opacus."""

_MAX_NOISE = 1e6
"""More noise than this, in clips, overflows in libraries and is accounted as this much."""


@dataclass(frozen=True, kw_only=True)
class Releases:
    """T noisy sums of contributions that are clipped to norm S, over units of which a random part contributes.

    Fields:
        noise_multiplier: The standard deviation of the noise in each coordinate divided by S, z.
        sampling: `poisson`, each unit independently with probability `rate`. `fixed_size`, the same number of units
            each time, `rate` of all, drawn without replacement. `everyone`, no drawing. `tree`, no drawing either, but
            a contribution is in several sums that are released.
        rate: Probability with which one unit contributes to one release.
        count: The number T of sums. For a `tree`, the square of the distance, in S, by which one unit moves all that is
            released. This costs as much as that many releases of one contribution each.
        delta: Probability with which the guarantee may fail; choose it below 1/N for N units.
        unit: What a neighbour differs in: one `record`, or one `client` with all its records.
        adjacency: How it differs. `add_remove`: the unit is there or not. `zero_out`: it adds
            nothing to any sum, and everything else, sampling included, stays. `replace`: another contribution is in the
            place of its own, so that the sum moves by up to 2 S and z counts half. With `fixed_size` the sum moves by
            up to 2 S under `zero_out` too. Where the unit is not drawn, another unit is drawn, whose contribution may
            point the other way.

    Errors: `ComponentError` for numbers out of range. Also for `fixed_size` with `add_remove`, which has no meaning: an
    added unit would change the probabilities of all other units.

    >>> Releases(noise_multiplier=1.0, sampling="poisson", rate=0.1, count=50, delta=1e-5, unit="client").accountants
    ('rdp', 'prv', 'pld', 'gaussian')
    """

    noise_multiplier: float
    sampling: Sampling
    rate: float = 1.0
    count: int
    delta: float
    unit: Unit
    adjacency: Adjacency = "add_remove"

    def __post_init__(self) -> None:
        wrong = {
            "noise_multiplier": not self.noise_multiplier >= 0 and "at least 0",
            "rate": not 0 < self.rate <= 1 and "above 0 and at most 1",
            "count": not self.count >= 0 and "at least 0",
            "delta": not 0 < self.delta < 1 and "above 0 and below 1",
        }
        for name, allowed in wrong.items():
            if allowed:
                raise ComponentError(f"privacy.{name}", f"{getattr(self, name)} is not possible; it must be {allowed}")
        if self.sampling in ("everyone", "tree") and self.rate != 1:
            raise ComponentError(
                "privacy.rate", f"{self.rate} with sampling {self.sampling}, where it is 1; use poisson or fixed_size"
            )
        if self.sampling == "fixed_size" and self.adjacency == "add_remove":
            raise ComponentError(
                "privacy.adjacency",
                "add_remove with cohorts of a fixed size is not defined: with one unit more all others would be drawn "
                "less often. Use zero_out or replace, or sampling poisson",
            )

    @property
    def accountants(self) -> tuple[Accountant, ...]:
        """The accountants whose bounds hold for this sampling and this adjacency."""
        if self.sampling == "poisson":
            return ("pld", "gaussian") if self.adjacency == "replace" else ("rdp", "prv", "pld", "gaussian")
        return ("rdp", "pld", "gaussian") if self.sampling == "fixed_size" else ("rdp", "gaussian")

    @property
    def effective_noise(self) -> float:
        """The standard deviation of the noise divided by how far one unit can move the sum."""
        return self.noise_multiplier / (2 if self.adjacency == "replace" else 1)

    def __str__(self) -> str:
        rate = "" if self.rate == 1 else f" at rate {self.rate:.4g}"
        count_text = f"moved by {self.count**0.5:.4g} clips" if self.sampling == "tree" else f"{self.count} releases"
        return (
            f"unit {self.unit}, {self.adjacency}, {sampling_text(self.sampling)}{rate}, {count_text}, "
            f"noise multiplier {self.noise_multiplier:.4g}"
        )


@dataclass(frozen=True, kw_only=True)
class AccountantBounds:
    """The smallest epsilon that is proven for some releases, and each bound that was found, by its accountant."""

    releases: Releases
    epsilon: float
    accountant: Accountant
    bounds: Mapping[Accountant, float]

    def __str__(self) -> str:
        return f"epsilon {self.epsilon:.4g} at delta {self.releases.delta:.3g} ({self.accountant}; {self.releases})"


def guarantee_of(releases: Releases, by: Accountant | None = None) -> AccountantBounds:
    """Upper bounds of epsilon at the delta of these releases; each holds, so that the smallest of them does.

    - `rdp`: Rényi differential privacy, by dp-accounting. For cohorts of a fixed size it is the bound for sampling
      without replacement (Wang, Balle and Kasiviswanathan, 2019). It is taken at z / 2 for both `zero_out` and
      `replace`;
    - `prv`: privacy random variables, composed by Fourier transform, by Opacus (Gopi, Lee and Wutschitz, 2021);
    - `pld`: privacy loss distributions of the worst pair of neighbours (`fedmem.privacy.loss_profiles`), composed by
      dp-accounting (Doroshenko et al., 2022);
    - `gaussian`: exact for `everyone` and `tree`. For the others the bound without sampling, which holds too,
      since sampling only helps; below the others where there is little noise.

    0 without releases, infinite without noise. `prv` is left out where the others are above `LARGEST`. `by` asks for
    one alone.

    Errors: `ComponentError` if that one does not hold for this sampling and adjacency, or is left out.

    >>> print(guarantee_of(Releases(noise_multiplier=2, sampling="everyone", count=20, delta=1e-5, unit="client")))
    epsilon 11.48 at delta 1e-05 (gaussian; unit client, add_remove, no amplification, 20 releases, noise multiplier 2)
    """
    if by is not None and by not in releases.accountants:
        raise ComponentError("privacy.accountant", _refusal(releases, by))
    bounds = {name: _bound(releases, name) for name in releases.accountants if by in (None, name)}
    bounds = {name: epsilon for name, epsilon in bounds.items() if not math.isnan(epsilon)}
    if not bounds:
        raise ComponentError(
            "privacy.accountant",
            f"{by} is not asked where epsilon is above {LARGEST}; use rdp or gaussian, or more noise",
        )
    best = min(bounds, key=lambda name: bounds[name])
    return AccountantBounds(releases=releases, epsilon=bounds[best], accountant=best, bounds=bounds)


def noise_for(target_epsilon: float, releases: Releases) -> float:
    """The smallest noise multiplier, to one part in a thousand, whose `guarantee_of` is at most `target_epsilon`.

    The noise multiplier of `releases` is not used. The guarantee of what is returned never exceeds the target. 0
    without releases, and never between 0 and 10^-3.

    Errors: `ComponentError` for a target that is not positive and finite, or that no noise up to 10^6 meets.

    >>> wanted = Releases(noise_multiplier=0, sampling="everyone", count=20, delta=1e-5, unit="client")
    >>> round(noise_for(11.48, wanted), 1)
    2.0
    """
    from scipy.optimize import brentq

    if not 0 < target_epsilon < math.inf:
        raise ComponentError("privacy.target_epsilon", f"{target_epsilon} is not possible; it must be above 0")
    if releases.count == 0:
        return 0.0

    @cache
    def excess(logarithm: float, max_epsilon: float) -> float:
        """Epsilon minus the target; loss distributions stay on a coarse grid where they are above `max_epsilon`."""
        noisy = replace(releases, noise_multiplier=math.exp(logarithm))
        best = _bound(noisy, "gaussian")
        if "pld" in releases.accountants:
            best = min(best, _pld(noisy, max_epsilon))
        # where grids are fine, the others are never smaller, and take their time
        if best > LARGEST and "rdp" in releases.accountants:
            best = min(best, _bound(noisy, "rdp"))
        return min(1e6, best) - target_epsilon

    low, high = math.log(1e-3), 0.0
    while excess(high, 0.0) > 0:
        low, high = high, high + 1.0
        if high > math.log(1e6):
            raise ComponentError(
                "privacy.target_epsilon",
                f"{target_epsilon} at delta {releases.delta} is met by no noise up to 1e6 clips; raise one of them",
            )
    if excess(low, 0.0) <= 0:
        return math.exp(low)
    rough = float(brentq(excess, low, high, args=(0.0,), xtol=1e-3)) + 2e-3
    low = rough - 0.02
    while excess(low, LARGEST) <= 0:
        rough, low = low, low - 0.1
    return math.exp(_calibrate(lambda logarithm: excess(logarithm, LARGEST), low, rough))


def _calibrate(excess: Callable[[float], float], low: float, high: float) -> float:
    """Where an excess over a target reaches 0, to 10^-4, by dp-accounting; never a place where it is above 0."""
    from dp_accounting import NoOpDpEvent
    from dp_accounting.mechanism_calibration import ExplicitBracketInterval, calibrate_dp_mechanism

    class Accountant:
        """An accountant of the library whose event is the logarithm of the noise, and its epsilon the excess."""

        ledger = NoOpDpEvent()

        def compose(self, event: float) -> Accountant:
            self.event = event
            return self

        def get_epsilon(self, _: float) -> float:
            return excess(self.event)

    root = float(
        calibrate_dp_mechanism(Accountant, lambda event: event, 0.0, 0.0, ExplicitBracketInterval(low, high), tol=1e-4)
    )
    while excess(root) > 0:  # whatever the library returns
        root += 1e-4
    return root


def individual_epsilon(norms: FloatArray, noise_multiplier: float, clip: float, delta: float) -> FloatArray:
    """Epsilon of each of N units by the norms that it really had (Feldman and Zrnic, 2021): (T, N) -> (N,).

    At Rényi order a it is spent a sum_t min(norm, S)^2 / (2 z^2 S^2), converted at the best order. NaN stands for a
    release without the unit and costs nothing; there is no amplification by sampling. Adjacency: its contribution is
    replaced by zero. A unit at the clipping norm in every release has the epsilon of all units.

    - depends on the data: it is itself not private, and is for internal study, never to be published;
    - no guarantee made beforehand, since nothing stops a unit that spends more than another.

    >>> individual_epsilon(np.array([[1.0, 0.1, np.nan]]), 1.0, 1.0, 1e-5).round(2).tolist()
    [4.73, 0.38, 0.0]
    """
    length = np.minimum(np.where(np.isnan(norms), 0.0, norms), clip) / clip
    return epsilon_of_spent(np.square(length).sum(0), noise_multiplier, delta)


def epsilon_of_spent(spent: FloatArray, noise_multiplier: float, delta: float) -> FloatArray:
    """`individual_epsilon` of N units from the sums (N,) over their releases of min(norm, S)^2 / S^2.

    >>> epsilon_of_spent(np.array([0.0, 1.0]), 1.0, 1e-5).round(2).tolist()
    [0.0, 4.73]
    """
    if noise_multiplier == 0:
        return np.where(spent > 0, np.inf, 0.0)
    from dp_accounting.rdp import compute_epsilon

    orders = _orders()
    half = np.asarray(orders) / (2 * noise_multiplier**2)
    return np.array(
        [float(compute_epsilon(orders, half * total, delta)[0]) if total else 0.0 for total in spent.tolist()]
    )


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The exact epsilon at `delta` of Gaussian noise whose mean moves by `mu` standard deviations, by dp-accounting.

    It solves delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu) (Balle and Wang, 2018); 0 where delta
    is larger already at epsilon 0.

    >>> round(gaussian_epsilon(1.0, 1e-5), 2), round(gaussian_epsilon(2.0, 1e-5), 2)
    (4.38, 10.0)
    """
    from dp_accounting.gaussian_mechanism import get_epsilon_gaussian

    with np.errstate(divide="ignore"):  # the logarithm of a delta that rounds to 0
        return float(get_epsilon_gaussian(1 / mu if mu else math.inf, delta))


def _refusal(releases: Releases, by: Accountant) -> str:
    """Why an accountant does not hold here, and what does."""
    use = f"use one of: {', '.join(releases.accountants)}"
    if releases.sampling == "fixed_size":
        return (
            f"{by} assumes Poisson sampling, but cohorts of a fixed size leak more: if one client was drawn, another "
            f"was not. To mend it, {use}, or the sampler poisson"
        )
    if releases.sampling in ("everyone", "tree"):
        return (
            f"{by} is for releases to which a random part contributes; with {releases.sampling} gaussian is exact; "
            f"{use}"
        )
    return f"{by} of Poisson sampling is known for one unit more or less, not for adjacency replace; {use}"


def sampling_text(sampling: str) -> str:
    """The law of cohorts as tables name it.

    >>> sampling_text("everyone"), sampling_text("fixed_size")
    ('no amplification', 'fixed_size')
    """
    return "no amplification" if sampling == "everyone" else sampling


@lru_cache(maxsize=4096)
def _bound(releases: Releases, by: Accountant) -> float:
    """The epsilon of one accountant; NaN where it is not worth its time.

    Noise beyond `_MAX_NOISE` counts as that much, which overflows nowhere and gives a bound as well.
    """
    if releases.count == 0:
        return 0.0
    if releases.noise_multiplier > _MAX_NOISE:
        return _bound(replace(releases, noise_multiplier=_MAX_NOISE), by)
    if releases.noise_multiplier == 0:
        return math.inf
    if by == "gaussian":
        return gaussian_epsilon(math.sqrt(releases.count) / releases.effective_noise, releases.delta)
    if by == "rdp":
        return _rdp(releases)
    if by == "pld":
        return _pld(releases, LARGEST)
    others: list[Accountant] = [name for name in releases.accountants if name != "prv"]
    return _prv(releases) if min(_bound(releases, name) for name in others) <= LARGEST else math.nan


def _rdp(releases: Releases) -> float:
    from dp_accounting import (
        GaussianDpEvent,
        NeighboringRelation,
        PoissonSampledDpEvent,
        SampledWithoutReplacementDpEvent,
    )
    from dp_accounting.rdp import RdpAccountant

    # a unit of a cohort of a fixed size takes the place of another one, however the two differ
    fixed = releases.sampling == "fixed_size"
    noise = GaussianDpEvent(releases.noise_multiplier / 2 if fixed else releases.effective_noise)
    # Of the size of the set only the share that is drawn matters to the bound, so the set may as well be enormous.
    many = 10**9
    event = {
        "poisson": PoissonSampledDpEvent(releases.rate, noise),
        "fixed_size": SampledWithoutReplacementDpEvent(many, math.ceil(releases.rate * many), noise),
        "everyone": noise,
        "tree": noise,
    }[releases.sampling]
    relation = NeighboringRelation.REPLACE_ONE if fixed else NeighboringRelation.ADD_OR_REMOVE_ONE
    with _silence_warnings():
        accountant = RdpAccountant(_orders(), relation)
        accountant.compose(event, releases.count)
        return float(accountant.get_epsilon(releases.delta))


def _prv(releases: Releases) -> float:
    from opacus.accountants import PRVAccountant

    accountant: Any = PRVAccountant()
    accountant.history = [(releases.effective_noise, releases.rate, releases.count)]
    with warnings.catch_warnings():
        # its first guess is by Rényi orders, of which it says where they could be finer
        warnings.simplefilter("ignore")
        # where little is lost its bound may be negative, which is no epsilon
        return max(0.0, float(accountant.get_epsilon(releases.delta)))


def _pld(releases: Releases, max_epsilon: float) -> float:
    """By loss distributions; on a coarse grid, which gives a bound as well, where that is above `max_epsilon`."""
    pair: Pair = "poisson"
    if releases.sampling == "fixed_size":
        pair = "fixed_replace" if releases.adjacency == "replace" else "fixed_zero_out"
    elif releases.adjacency == "replace":
        pair = "poisson_replace"
    loss_profile = profile(pair, releases.noise_multiplier, releases.rate)
    return composed_epsilon(loss_profile, releases.count, releases.delta, max_epsilon)


def _orders() -> list[float]:
    from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS

    return [float(order) for order in DEFAULT_RDP_ORDERS]


@contextmanager
def _silence_warnings() -> Iterator[None]:
    """Without the warnings about single Rényi orders that do not converge, which are left out of the bound."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
