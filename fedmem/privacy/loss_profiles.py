"""Privacy profiles of one noisy sum of sampled contributions, and the epsilon of many of them.

The profile of P against Q is the hockey-stick divergence delta(epsilon) = sup over events A of P(A) - e^epsilon Q(A).
The largest profile over all pairs of neighbours is convex in e^epsilon, so a pair of distributions has it. Composed
with itself, that pair dominates every composition, adaptive ones too (Zhu, Dong and Wang, 2022).

Lengths are in units of the clipping norm. The noise is N(0, z^2), contributions have length at most 1, and q is the
probability with which one unit contributes. Every extreme pair lies on a line, with means -1, 0 and 1.

Why these pairs are extreme. A release with the unit and one without it are mixtures of normal distributions. Given the
others of the cohort, the components are those with the unit absent (mean a), and with either of its contributions (b
and c). Joint convexity moves the mixture over the others out. Then P - e^epsilon Q is w_a N(a) + w_b N(b) + w_c N(c),
and its positive part has an integral F. Gaussian interpolation gives
`dF = -1/4 sum over pairs i != j of M_ij d|t_i - t_j|^2`. There M_ij has the sign of w_i w_j, and the rows of M sum to
zero. So F grows with the distance of two means of opposite sign, and falls with that of two means of the same sign.
`profile` names the extreme means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fedmem.contracts.arrays import FloatArray

Pair = Literal["poisson", "poisson_replace", "fixed_zero_out", "fixed_replace"]

_COARSE, _FINE = 1000, 20_000
"""Into how many intervals the losses of a release are cut: for a first look, and where that is small enough. Twice as
many of the latter change epsilon by less than one part in a thousand."""

_NO_LOSS = 1e-9
"""Privacy losses that no grid resolves."""

_MAX_INTERVAL = 500.0
"""The exponential of a wider interval is near the largest number; without sampling nothing is lost there."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Both directions of the extreme pair of neighbours, each from epsilon (n,) of at least 0 to delta (n,).

    `forward` is D against D', where the unit of D contributes and that of D' does less. `backward` is D' against D. The
    same function stands for both where the roles can be exchanged.
    """

    forward: Callable[[FloatArray], FloatArray]
    backward: Callable[[FloatArray], FloatArray]


def profile(pair: Pair, noise: float, rate: float) -> Profile:
    """The largest profile over all neighbours of a kind, exactly; z is `noise`, q is `rate`.

    - `poisson`: the unit is there with probability q, or never. (1 - q) N(0) + q N(1) against N(0).
    - `poisson_replace`: it has other data. (1 - q) N(0) + q N(1) against (1 - q) N(0) + q N(-1).
    - `fixed_zero_out`: a cohort of a fixed size has it with probability q, and otherwise another unit, whose
      contribution may point the other way. (1 - q) N(-1) + q N(1) against (1 - q) N(-1) + q N(0); in the other
      direction (1 - q) N(1) + q N(0) against N(1).
    - `fixed_replace`: (1 - q) N(-1) + q N(1) against N(-1), in both directions.

    >>> nothing = np.array([0.0, 3.747])
    >>> profile("fixed_zero_out", 1.0, 0.1).forward(nothing).round(7).tolist()
    [0.0382925, 1e-05]
    """

    def mixture_tail(z: float) -> Callable[[FloatArray], FloatArray]:
        return lambda epsilon: _profile_of_sampling(epsilon, z, rate)

    if pair == "poisson":
        return Profile(
            forward=mixture_tail(noise), backward=lambda epsilon: _profile_against_sampling(epsilon, noise, rate)
        )
    if pair == "fixed_zero_out":
        return Profile(forward=lambda epsilon: _profile_of_swap(epsilon, noise, rate), backward=mixture_tail(noise))
    if pair == "fixed_replace":
        return Profile(forward=mixture_tail(noise / 2), backward=mixture_tail(noise / 2))

    def replacement_profile(epsilon: FloatArray) -> FloatArray:
        return _profile_of_replacement(epsilon, noise, rate)

    return Profile(forward=replacement_profile, backward=replacement_profile)


def composed_epsilon(loss_profile: Profile, count: int, delta: float, max_epsilon: float) -> float:
    """An upper bound of epsilon at `delta` of `count` releases of this profile, for neighbours in either order.

    Profiles are interpolated linearly in e^epsilon, which lies above what is convex (connect the dots; Doroshenko et
    al., 2022), and composed by Fourier transform. A coarse grid comes first; its bound holds as well, and is returned
    where it is above `max_epsilon`. Infinite where delta is below what floating point can resolve.

    >>> round(composed_epsilon(profile("poisson", 1.0, 0.1), 50, 1e-5, 64.0), 2)
    5.15
    """
    cut = max(min(1e-5 * delta / count, 1e-10), 1e-25)
    ends = _end(loss_profile.forward, cut), _end(loss_profile.backward, cut)
    span = sum(ends)
    if span < _NO_LOSS and count * cut <= delta:
        return count * max(ends)  # each release loses at most that, but for `cut`
    coarse_epsilon = _on_grid(loss_profile, ends, span / _COARSE, count, delta)
    if coarse_epsilon > max_epsilon:
        return coarse_epsilon
    return min(coarse_epsilon, _on_grid(loss_profile, ends, span / _FINE, count, delta))


def composed_profile(loss_profile: Profile, count: int) -> Profile:
    """Upper bounds of both directions of the profile of `count` releases of the extreme pair.

    They are those from which `composed_epsilon` finds its epsilon, on the coarse grid. They are 1 where privacy losses
    are too large for it.

    >>> twice = composed_profile(profile("poisson", 1.0, 1.0), 2)
    >>> twice.forward(np.array([0.0])).round(3).tolist()  # of noise with the mean sqrt(2)
    [0.521]
    """
    cut = 1e-10 / count
    ends = _end(loss_profile.forward, cut), _end(loss_profile.backward, cut)
    interval = max(sum(ends), _NO_LOSS) / _COARSE
    if interval > _MAX_INTERVAL:
        return Profile(forward=np.ones_like, backward=np.ones_like)

    def deltas(mass: Any) -> Callable[[FloatArray], FloatArray]:
        whole = mass.self_compose(count)
        return lambda epsilon: np.asarray(whole.get_delta_for_epsilon(epsilon), dtype=np.float64)

    forward, backward = loss_profile.forward, loss_profile.backward
    return Profile(
        forward=deltas(_masses(forward, backward, ends, interval)),
        backward=deltas(_masses(backward, forward, ends[::-1], interval)),
    )


def _on_grid(loss_profile: Profile, ends: tuple[float, float], interval: float, count: int, delta: float) -> float:
    """`composed_epsilon` with privacy losses rounded to multiples of an interval."""
    if interval > _MAX_INTERVAL:
        return math.inf
    distributions = [_masses(loss_profile.forward, loss_profile.backward, ends, interval)]
    if loss_profile.forward is not loss_profile.backward:
        distributions.append(_masses(loss_profile.backward, loss_profile.forward, ends[::-1], interval))
    return max(_epsilon(mass.self_compose(count), delta) for mass in distributions)


def _epsilon(composed: Any, delta: float) -> float:
    # the search of the library runs into the exponential of large negative losses where the answer is 0
    if composed.get_delta_for_epsilon(0.0) <= delta:
        return 0.0
    with np.errstate(over="ignore"):
        return float(composed.get_epsilon_for_delta(delta))


def _masses(
    forward: Callable[[FloatArray], FloatArray],
    backward: Callable[[FloatArray], FloatArray],
    ends: tuple[float, float],
    interval: float,
) -> Any:
    """The distribution of privacy losses whose profile connects dots of this one.

    Below 0 a profile follows from the other direction: delta(epsilon) = 1 - e^epsilon + e^epsilon delta'(-epsilon).
    """
    from dp_accounting.pld.pld_pmf import create_pmf_pessimistic_connect_dots_fixed_gap

    low, high = -math.ceil(ends[1] / interval), math.ceil(ends[0] / interval)
    below, above = (interval * np.arange(*reach, dtype=np.float64) for reach in ((low, 0), (0, high + 1)))
    deltas = np.concatenate([-np.expm1(below) + np.exp(below) * backward(-below), forward(above)])
    # rounding in the last digit may leave what falls by less than that in disorder
    falling = np.minimum.accumulate(np.clip(deltas, 0.0, 1.0))
    return create_pmf_pessimistic_connect_dots_fixed_gap(interval, low, high, falling).to_dense_pmf()


def _end(function: Callable[[FloatArray], FloatArray], cut: float) -> float:
    """An epsilon at which a profile is at most `cut`, hardly larger than the smallest."""

    def is_above(epsilon: float) -> bool:
        return bool(function(np.array([epsilon]))[0] > cut)

    low, high = 0.0, 1e-3
    while is_above(high):
        low, high = high, 2 * high
    while high - low > 0.01 * high and high > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if is_above(middle) else (low, middle)
    return high


def _profile_of_sampling(epsilon: FloatArray, noise: float, rate: float) -> FloatArray:
    """(1 - q) N(0) + q N(1) against N(0), which is also N(1) against (1 - q) N(1) + q N(0) turned round."""
    with np.errstate(divide="ignore"):
        lift = np.log1p(-(1 - rate) * np.exp(-epsilon)) + epsilon - math.log(rate)
    at = noise * lift + 0.5 / noise
    return rate * _positive_part(((0.0, at - 1 / noise), (lift, at)))


def _profile_against_sampling(epsilon: FloatArray, noise: float, rate: float) -> FloatArray:
    """N(0) against (1 - q) N(0) + q N(1), whose losses are below -log(1 - q)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = epsilon < -np.log1p(-rate)
        remainder = np.where(inside, np.exp(-epsilon) - (1 - rate), np.nan)
        at = noise * np.log(remainder / rate) + 0.5 / noise
        tail = _positive_part(((epsilon + np.log(remainder), -at), (epsilon + math.log(rate), 1 / noise - at)))
    return np.where(inside, tail, 0.0)


def _profile_of_swap(epsilon: FloatArray, noise: float, rate: float) -> FloatArray:
    """(1 - q) N(-1) + q N(1) against (1 - q) N(-1) + q N(0)."""
    half = 0.5 / noise**2
    with np.errstate(divide="ignore"):
        others = math.log1p(-rate) - math.log(rate) if rate < 1 else -math.inf
        # how much more often e^epsilon times the second has the unit absent than the first has
        extra = others + epsilon + np.log(-np.expm1(-epsilon))
    root = 0.5 * np.logaddexp(2 * (epsilon + half), math.log(4) + extra)
    at = noise * (np.logaddexp(epsilon + half, root) - math.log(2))
    return rate * _positive_part(((0.0, at - 1 / noise), (epsilon, at), (extra, at + 1 / noise)))


def _profile_of_replacement(epsilon: FloatArray, noise: float, rate: float) -> FloatArray:
    """(1 - q) N(0) + q N(1) against (1 - q) N(0) + q N(-1)."""
    half, ours = 0.5 / noise**2, math.log(rate)
    with np.errstate(divide="ignore"):
        extra = epsilon + np.log(-np.expm1(-epsilon)) + (math.log1p(-rate) if rate < 1 else -math.inf)
    root = 0.5 * np.logaddexp(2 * extra, math.log(4) + epsilon + 2 * ours - 2 * half)
    at = noise * (half - ours - math.log(2) + np.logaddexp(extra, root))
    return rate * _positive_part(((0.0, at - 1 / noise), (extra - ours, at), (epsilon, at + 1 / noise)))


def _positive_part(terms: Sequence[tuple[Any, FloatArray]]) -> FloatArray:
    """The first weight times its upper tail, less those of the others; (log weight, where the tail begins) each."""
    from scipy.special import log_ndtr

    first, *others = (weight + log_ndtr(-at) for weight, at in terms)
    with np.errstate(invalid="ignore"):
        remainder = 1.0 - sum(np.exp(np.minimum(other - first, 0.0)) for other in others)
        return np.where(first > -math.inf, np.exp(first) * np.maximum(remainder, 0.0), 0.0)
