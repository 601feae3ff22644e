"""The largest share of right guesses of an informed adversary under differential privacy.

An adversary knows all rows but one, and that this row is one of m candidates, each with probability 1/m. Its guess
divides the outputs into disjoint events A_1, …, A_m. With P_i the output for candidate i, it is right with probability
(1/m) sum_i P_i(A_i). Let Q be the output for any fixed neighbour, such as the one without the row. Let T(x) be the
largest true positive rate at false positive rate x of any test of P_i against Q. T is concave, so the success is at
most (1/m) sum_i T(Q(A_i)) <= T(1/m).

The same bound holds for a reconstruction that succeeds with probability at most 1/m without the output, the prior of
Balle, Cherubin and Hayes (2022). Hayes, Mahloujifar and Balle (2023) bound it by the hypothesis test as here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedmem.contracts.arrays import FloatArray

GRID = np.concatenate([[0.0], np.geomspace(1e-6, 1e3, 6000)])
"""The epsilons at which a profile is read; each gives a valid bound, and the smallest is taken."""


def gaussian_success(prior: float, mu: float) -> float:
    """T(prior) of N(mu, 1) against N(0, 1): Φ(Φ⁻¹(prior) + mu).

    It holds for Gaussian noise whose mean the row moves by at most mu standard deviations. For steps that adapt to
    each other, the squares of their mu add up (Dong, Roth and Su, 2022).

    Args:
        prior: The probability of a right guess without the output, from 0 to 1.
        mu: At least 0; 0 gives the prior, infinity gives 1.

    >>> round(gaussian_success(0.1, 0.0), 6), round(gaussian_success(0.1, 1.0), 3)
    (0.1, 0.389)
    """
    from scipy.special import ndtr, ndtri

    assert 0 <= prior <= 1, prior
    assert mu >= 0, mu
    if prior in (0.0, 1.0) or np.isinf(mu):
        return float(prior > 0)
    return float(ndtr(ndtri(prior) + mu))


def success_from_profile(
    prior: float, forward: Callable[[FloatArray], FloatArray], backward: Callable[[FloatArray], FloatArray]
) -> float:
    """T(prior) of a pair of distributions from its privacy profiles.

    T(x) = min over epsilon of e^epsilon x + delta(epsilon), over all real epsilon. For negative ones, delta(-epsilon) =
    1 - e^-epsilon + e^-epsilon delta'(epsilon), with the profile delta' of the other direction. Each epsilon gives a
    valid bound, so a minimum over a grid is never below T. A grid point that is not finite does not count.

    Args:
        prior: The probability of a right guess without the output, from 0 to 1.
        forward: The profile with the row against without, from epsilon (n,) of at least 0 to delta (n,).
        backward: The profile of the other direction.

    >>> nothing = lambda epsilon: np.zeros_like(epsilon)
    >>> success_from_profile(0.25, nothing, nothing)
    0.25
    """
    assert 0 <= prior <= 1, prior
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        shrunk = np.exp(-GRID)
        above = prior / shrunk + forward(GRID)
        below = shrunk * prior + (1 - shrunk) + shrunk * backward(GRID)
    values = np.concatenate([above, below])
    return float(min(1.0, values[np.isfinite(values)].min(initial=1.0)))


def success_among(candidates: int, epsilon: float, delta: float) -> float:
    """The largest share of right guesses among m equally probable rows, from epsilon and delta alone.

    (e^epsilon + (m - 1) delta) / (e^epsilon + m - 1), for a guarantee to neighbours with another row in the place of
    the unknown one. For each i and each j != i, P_i(A_i) <= e^epsilon P_j(A_i) + delta. The sum over j, and then over
    i, has on its right sum_i sum_{j != i} P_j(A_i) = m - S, where S = sum_i P_i(A_i). So
    (m - 1) S <= e^epsilon (m - S) + m (m - 1) delta, which gives the bound of S / m.

    It is reached: publish the row with probability delta, and otherwise by randomised response. A guarantee to
    neighbours with a contribution of zero is one of (2 epsilon, (1 + e^epsilon) delta) for replaced rows. Where the
    noise is Gaussian, `gaussian_success` is the better bound. The two are equal for two candidates.

    Args:
        candidates: m, at least 2.
        epsilon: At least 0, may be infinite.
        delta: From 0 to 1.

    >>> round(success_among(4, 0.0, 0.0), 6), round(success_among(2, float(np.log(3)), 0.0), 6)
    (0.25, 0.75)
    """
    assert candidates >= 2, candidates
    assert epsilon >= 0, epsilon
    assert 0 <= delta <= 1, delta
    others = (candidates - 1) * float(np.exp(-epsilon))
    return (1 + others * delta) / (1 + others)
