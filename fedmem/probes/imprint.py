"""Imprint: a dishonest server sorts rows into bins by one projection, and reads each row that is alone in a bin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.probe import BuiltNetwork
from fedmem.errors import Problem
from fedmem.probes._dishonest import DishonestServer, Plan
from fedmem.probes._first_layer import FirstLayer, find_first_layer

LOWEST = 10.0
"""How many spreads below the population the first threshold lies, so that all rows are above it."""


@dataclass(frozen=True, kw_only=True)
class Imprint(DishonestServer):
    """A server that sends a first layer whose units all compute one projection, with rising thresholds.

    The round of a client is replayed from the changed model. The federation trains as it does without the probe. With k
    bins, unit i computes `relu(w a - t_i)` of what arrives at the layer. All units have the same weights in the next
    layer, so that a row moves every unit below its projection alike. The gradient of unit i minus that of unit i + 1 is
    then that of the rows with a projection from t_i to t_{i+1}. Where one row is alone there, the difference of weights
    divided by that of biases is the row: `x = dg_W / dg_b`.

    Thresholds are order statistics of the projections of the population. So the probability of each bin follows a beta
    law. With P rows of the population, bin i of m_i gaps has `p_i ~ Beta(m_i, P + 1 - m_i)`. Of n rows like those of
    the population, the expected share that is alone is `sum_i E[p_i (1 - p_i)^(n - 1)]`, which is
    `isolated_rows_expected`. For a large population it is `(1 - 1/k)^(n - 1)`. A secure sum of s clients has s times as
    many rows, and nothing else changes.

    Readings, of each attacked message or sum and each server. `server` = `honest` has the quotients of the real
    message, of every unit on its own, as the control that no change of the model is needed:

    - `exact_rows`: the share of the rows that equal a quotient up to `tolerance` in every entry;
    - `exact`: the same for single audit examples, in and out (`coin` = `out`);
    - `isolated_rows`: the share of rows that are alone in a bin at the model that was sent. It is computed from the
      rows, so that the decoding is separated from the occupancy of bins. Equal rows are not alone, and yet exact;
    - `isolated_rows_expected`: see above;
    - `identified`, `psnr`, `margin` and the others of the probe `leakage`, with the same galleries, controls and
      baseline guesses. All quotients count as reconstructed images. They are cut to [0, 1].

    What the server is granted: the architecture, a population like the clients' rows, and the client algorithm with its
    settings and payload. It knows neither the rows nor the labels. No quotient is picked with knowledge of the rows.
    What the client does without data is taken off: weight decay, momentum, a proximal term and the corrections of
    `scaffold` and `feddyn`. If `clip` scales such an update, the factor is read from cells that no row moved. If there
    is no such cell, a rest stays and fewer rows are exact than isolated. That is no protection.

    `summarise` gives means over messages and over victims, and in minus out, with the intervals of `leakage`.

    Fields

    - `bins`: number of bins; null takes as many as the layer has units.
    - `direction`: `random`, or the mean `brightness` of an input.
    - `amplification`: weights of the next layer. A larger one makes gradients larger against the weights that are sent.
      So rounding in messages matters less, and further local steps move thresholds more.
    - `steps`: numbers of local steps after which the client answers; by default, all of its steps. A client with fewer
      steps has no reading. Later steps start from thresholds that earlier ones moved.
    - `tolerance`: largest difference of an entry that counts as exact, on inputs in [0, 1].
    - `rounds`: which observed rounds to attack; if left out, the first after round 0 and the last.
    - `victims`: clients attacked in each round and run.
    - `runs`: how many runs are attacked, from run 0 on.
    - `gallery`: how many images a gallery has at most, except for the references of canaries.
    - `every`: attack only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to attack: `local`, `sum` or both.

    Guarantees: deterministic; nothing is changed; the readings of a run do not depend on other runs.

    Refused where the model does not begin with a linear layer, a ReLU and another linear layer. Also without a
    population, or with more bins than units or than rows of the population.

    >>> Imprint(bins=4, steps=(1, 5)).replays_per_client(3)
    2

    References: Fowl, Geiping, Czaja, Goldblum and Goldstein (2022), Robbing the Fed.
    """

    _kind: ClassVar[str] = "imprint"

    bins: Annotated[int, Ge(2)] | None = None
    direction: Literal["random", "brightness"] = "random"
    amplification: Annotated[float, Gt(0)] = 1.0

    def network_problems(self, built: BuiltNetwork) -> list[Problem]:
        """Also whether there are more bins than units, or than rows of the population."""
        problems = super().network_problems(built)
        if problems:
            return problems
        units = find_first_layer(built, self._kind).units
        bins, limit = self.bins or units, min(units, built.population + 1)
        if bins <= limit:
            return []
        message = f"imprint has {bins} bins, but the first layer has {units} units and the population "
        remedy = f"{built.population} rows. Set bins to at most {limit}, or a wider layer and a larger population"
        return [Problem(path="bins", message=message + remedy)]

    def _plan(self, arrived: FloatArray, layer: FirstLayer, count: int, rng: np.random.Generator) -> Plan:
        """One projection for all units, thresholds from the population, and equal weights in the next layer."""
        bins = self.bins or layer.units
        width = arrived.shape[1]
        weight = np.full(width, 1.0 / width) if self.direction == "brightness" else rng.standard_normal(width)
        projected = np.sort(arrived @ weight)
        spread = float(projected.std()) or 1.0
        thresholds = np.concatenate(
            [projected[:1] - LOWEST * spread, projected[np.cumsum(gaps_of(bins, len(arrived)))[:-1] - 1]]
        )
        # small enough that the outputs of all units together hardly move the logits
        gain = 1.0 / (bins * spread * self.amplification)
        signs = np.where(np.arange(layer.outputs) % 2, -1.0, 1.0)
        return Plan(
            weight=np.tile(gain * weight, (bins, 1)),
            bias=-gain * thresholds,
            following=np.tile(self.amplification * signs[:, None], (1, bins)),
            adjacent=True,
        )

    def _expected_share(self, plan: Plan, arrived: FloatArray, count: int, rng: np.random.Generator) -> float:
        """The law of `expected_isolated`."""
        return expected_isolated(count, gaps_of(len(plan.weight), len(arrived)))


def gaps_of(bins: int, population: int) -> IntArray:
    """(k,) how many of the P + 1 gaps between ordered projections of a population are in each bin, as even as can be.

    >>> gaps_of(3, 10).tolist()
    [4, 3, 4]
    """
    ends = np.round(np.arange(1, bins + 1) * (population + 1) / bins).astype(np.int64)
    return np.diff(ends, prepend=0)


def expected_isolated(count: int, gaps: IntArray) -> float:
    """The expected share of n rows that are alone in a bin, where bins lie between order statistics of a population.

    The probability of a bin with m of P + 1 gaps is Beta(m, P + 1 - m). Its expected share of rows that are alone is
    `E[p (1 - p)^(n - 1)] = B(m + 1, P + n - m) / B(m, P + 1 - m)`. Projections have no ties, and rows are as those of
    the population.

    Args:
        count: n, the number of rows.
        gaps: (k,) m of each bin.

    >>> round(64 * expected_isolated(64, gaps_of(128, 10**7)), 1)
    39.0
    """
    from scipy.special import betaln

    m, total = gaps.astype(np.float64), float(gaps.sum())
    if len(gaps) == 1:
        return float(count == 1)
    return float(np.exp(betaln(m + 1, total - m + count - 1) - betaln(m, total - m)).sum())
