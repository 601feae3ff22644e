"""Quantile regression: the margin that a model would give an example without membership, learnt from reference data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from fedmem.attacks._gaussian_head import FLOOR, GaussianHead
from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.attack import MembershipGrant, Signals


@dataclass(frozen=True, kw_only=True)
class QuantileRegression:
    """Quantile regression of the margin on the example (Bertran et al., 2023): one model and a population.

    For each model, a Gaussian head (μ(x), log σ²(x)) is fitted to the margins φ of the population by penalised negative
    log likelihood. Both are linear in the features of x. No audit example enters the fit. The score is the quantile
    level of the example in standard units, about (φ − μ(x)) / √(σ²(x) + v(x)); higher means member. The attack says
    member at rate α if the score exceeds z_{1−α}, which is φ > q̂_{1−α}(x).

    - Features are the first principal components of the inputs of the population, an indicator of each label of the
      population, and 1. For texts, they are components of token counts. The authors fine-tune a pretrained network
      instead;
    - v(x) is the variance of μ(x) by the fit. Without it, too many population rows outside the fit would exceed q̂. At
      300 rows and normal margins, the share above q̂ is α within chance;
    - margins that are not normal given x make the rates wrong, but not the order of examples with similar features;
    - an example with a wrong label is compared with the rows of that label;
    - does not read the coins; NaN where the margin is NaN, without a population, and with fewer than 50 rows of it.

    Fields:
        features: Principal components of the inputs. 20 suit some hundred rows of population, more need thousands.
        ridge: Strength of the penalty on the weights, as a number of population rows that would pull them to 0.

    >>> QuantileRegression().reads
    ('labels', 'inputs')

    Reference: Bertran, Tang, Roth, Kearns, Morgenstern and Wu (2023), Scalable membership inference attacks via
    quantile regression.
    """

    title: ClassVar[str] = "quantile regression"
    legend: ClassVar[str] = "attack by how far the margin lies above what reference data predict for such an example"
    knows: ClassVar[str] = "margins of one model, and reference data with labels that it does not train on"
    needs_population: ClassVar[bool] = True
    reads: ClassVar[tuple[MembershipGrant, ...]] = ("labels", "inputs")
    reads_coins: ClassVar[bool] = False
    null_auc: ClassVar[float] = 0.5
    min_runs: ClassVar[int] = 2

    features: Annotated[int, Ge(0)] = 20
    ridge: Annotated[float, Gt(0)] = 1.0

    def scores(self, signals: Signals) -> FloatArray:
        """Standardised margins (R, m)."""
        scores = np.full(signals.margin.shape, np.nan)
        if (
            signals.population is None
            or signals.model is None
            or signals.inputs is None
            or signals.population_inputs is None
            or len(signals.population_inputs) < MIN_ROWS
        ):
            return scores
        features = feature_map(signals.population_inputs, signals.population_labels, self.features)
        rows = features(signals.population_inputs, signals.population_labels)
        asked = features(signals.inputs, signals.labels)
        for model, losses in enumerate(signals.population):
            columns = np.flatnonzero(signals.model == model)
            for run in np.flatnonzero(np.isfinite(losses).all(1) & (len(columns) > 0)):
                margin = margins_of(losses[run])
                unit = max(float(margin.std()), np.sqrt(FLOOR))
                head = GaussianHead.fit(rows, margin / unit, self.ridge)
                scores[run, columns] = head.standardise(asked[columns], signals.margin[run, columns] / unit)
        return scores


MIN_ROWS = 50
"""Fewer rows of population fit no head."""


def margins_of(losses: FloatArray) -> FloatArray:
    """Margins from losses −log p, finite for every loss.

    >>> margins_of(np.array([np.log(2.0), 0.0, 800.0])).round(1).tolist()
    [0.0, 708.4, -800.0]
    """
    p_wrong = np.maximum(-np.expm1(-losses), np.finfo(np.float64).tiny)
    return np.asarray(-losses - np.log(p_wrong))


def feature_map(
    inputs: NDArray[Any], labels: IntArray | None, components: int
) -> Callable[[NDArray[Any], IntArray | None], FloatArray]:
    """A function from inputs (n, ...) and labels (n,) to features (n, d), which is learnt from these rows.

    Features are 1, the first principal components in units of their standard deviation, and an indicator of each label
    but the first.
    """
    first = _flatten(inputs, None)
    width, mean = first.shape[1], first.mean(0)
    _, spread, directions = np.linalg.svd(first - mean, full_matrices=False)
    spread = spread / np.sqrt(len(first))
    used = np.flatnonzero(spread > 1e-8 * max(spread.max(initial=0.0), 1e-300))[:components]
    known = np.unique(labels)[1:] if labels is not None else np.zeros(0, np.int64)

    def features(rows: NDArray[Any], their_labels: IntArray | None) -> FloatArray:
        flat = (_flatten(rows, width) - mean) @ directions[used].T / spread[used]
        if their_labels is None:
            return np.concatenate([np.ones((len(flat), 1)), flat], axis=1)
        return np.concatenate([np.ones((len(flat), 1)), flat, their_labels[:, None] == known], axis=1)

    return features


def _flatten(inputs: NDArray[Any], width: int | None) -> FloatArray:
    """Numbers (n, d): inputs as they are, and of tokens how often each occurs."""
    flat = inputs.reshape(len(inputs), -1)
    if not np.issubdtype(flat.dtype, np.integer):
        return flat.astype(np.float64)
    size = int(flat.max(initial=0)) + 1 if width is None else width
    return np.stack([np.bincount(row[(row >= 0) & (row < size)], minlength=size) for row in flat]).astype(np.float64)
