"""Attribute inference: guesses of a sensitive column of a record from a model, beside guesses without the model."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.modalities.scores import answers, losses, margins
from fedmem.signals._imputation import logistic_probabilities, shares_of_largest
from fedmem.signals._observed_rounds import ObservedRounds
from fedmem.signals._sensitive_column import SensitiveColumn

SIZES = (50, 500)
"""Numbers of public rows that imputations of less knowledge are fitted to."""

_NOT_MEMORISED = "It is high where the column can be guessed, trained on or not; its gain is what training adds."


def _right(name: str, title: str, means: str, is_not: str = _NOT_MEMORISED) -> tuple[Measure, ...]:
    return signal_measures(
        Measure(name=name, title=title, means=means, is_not=is_not, unit="share", range=(0.0, 1.0), trained_on="higher")
    )


def _baseline(name: str, title: str, means: str) -> tuple[Measure, ...]:
    is_not = "It reads no model, so it is the same in all runs and its gain is 0."
    return signal_measures(Measure(name=name, title=title, means=means, is_not=is_not, unit="share", range=(0.0, 1.0)))


@dataclass(frozen=True, kw_only=True)
class AttributeInference(ObservedRounds):
    """How well the sensitive column of a record is guessed from a model, and without it.

    The attacker knows the label y of the record and all other columns, except `without_columns`. For each of V
    candidate values v, the record gets v in all entries of the column. The model then gives p(y | v). A quantity is the
    probability that the guess is right: 0 or 1 without ties. Tied values are guessed with equal probability.

    - `attribute_csmia`: the guess of CSMIA. If the model answers y for one v, it is that v. If the model does so for
      several, it is the one of the largest p(y | v). If the model never answers y, it is the v with the least confident
      answer.
    - `attribute_weighted`: argmax of prior(v) p(y | v), as in Fredrikson (2014) and Yeom (2018). The prior is the share
      of v in the public rows, with one more row of each value.
    - `attribute_lomia`: the guess of LOMIA, with `lomia`. If the model answers y for one v, it is that v. A logistic
      regression on such audit examples, with the label among its features, guesses the others. It is fitted at each
      model. Without such examples, the guess is the mode.
    - `attribute_exposure`: log2 V − log2 rank of the true value in bits, by p(y | v), ties counted half.

    Public rows are the population and the test set, which no client trains on. The same knowledge without any model
    gives the baselines:

    - `attribute_mode`: the mode of the public rows.
    - `attribute_imputed`: logistic regression of the column on the other known columns and y, by all public rows.
    - `attribute_imputed_50`, `attribute_imputed_500`: the same by so many public rows, if there are as many.
    - `attribute_over_imputation`: `attribute_weighted` minus `attribute_imputed`.

    A number is cut into bins at quantiles of the public rows. The candidate of a bin is the median of its public rows.
    Values are NaN where a model has diverged, and where a category of an example is no one-hot. Two confidences are
    stored for estimators. `attribute_confidence.weighted` is the largest prior(v) p(y | v), normalised over v.
    `attribute_confidence.imputed` is the largest probability of imputation.

    Fields

    - `column`: the sensitive column, from 0, in the order in which `fedmem check` lists them; the label is no column.
    - `without_columns`: columns that the attacker does not know. The model is asked with their mode or mean in the
      public rows, and imputation does without them.
    - `bins`: the most bins of a number.
    - `lomia`: read `attribute_lomia` too, which fits a regression at each model.
    - `public_rows`: the most public rows that the attacker has.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    Errors: `ComponentError` where there is no such column, it has one value, or no row is public.

    >>> AttributeInference(column=8).columns
    True

    References: Fredrikson et al. (2014), Privacy in pharmacogenetics. Yeom, Giacomelli, Fredrikson and Jha (2018),
    Privacy risk in machine learning. Mehnaz et al. (2022), Are your sensitive attributes private? Jayaraman and Evans
    (2022), Are attribute inference attacks just imputation?
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        *_right(
            "attribute_csmia",
            "attribute guessed by answers (CSMIA)",
            "Share of examples whose sensitive column is guessed from the model's answers and their confidence.",
        ),
        *_right(
            "attribute_weighted",
            "attribute guessed by label and frequency",
            "Share of examples whose sensitive column is guessed by frequency times the probability of the label.",
        ),
        *_right(
            "attribute_lomia",
            "attribute guessed by labels (LOMIA)",
            "Share of examples whose sensitive column is guessed by a regression on what the model's answers reveal.",
        ),
        *signal_measures(
            Measure(
                name="attribute_exposure",
                title="exposure of the attribute",
                means="How far up the model ranks the true value of the sensitive column among all candidates.",
                is_not="It is no guess: it uses no frequencies, and is high where the value is typical of the label.",
                unit="bits",
                range=(0.0, math.inf),
                trained_on="higher",
            )
        ),
        *_baseline("attribute_mode", "mode of the attribute", "Share of examples that have the most frequent value."),
        *_baseline(
            "attribute_imputed",
            "attribute imputed",
            "Share of examples whose sensitive column is guessed without the model, from all public rows.",
        ),
        *_baseline(
            "attribute_imputed_50",
            "attribute imputed from 50 rows",
            "Share of examples whose sensitive column is guessed without the model, from 50 public rows.",
        ),
        *_baseline(
            "attribute_imputed_500",
            "attribute imputed from 500 rows",
            "Share of examples whose sensitive column is guessed without the model, from 500 public rows.",
        ),
        *signal_measures(
            Measure(
                name="attribute_over_imputation",
                title="attribute guessed, minus imputed",
                means="Share guessed by label and frequency, minus the share imputed from all public rows.",
                is_not="It can be above 0 without memorisation: a model knows the population better than few rows do.",
                unit="share",
                range=(-1.0, 1.0),
                trained_on="higher",
            )
        ),
    )
    texts: ClassVar[bool] = False
    columns: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("attribute_confidence",)

    column: Annotated[int, Ge(0)] = 0
    without_columns: tuple[Annotated[int, Ge(0)], ...] = ()
    bins: Annotated[int, Ge(2)] = 4
    lomia: bool = False
    public_rows: Annotated[int, Ge(2)] = 5000

    def passes_in(self, federation: Federation) -> tuple[float, float]:
        """One for each candidate."""
        return float(self._column(federation).count), 0.0

    def variant_names(self, federation: Federation) -> Mapping[str, Sequence[str]]:
        """The two confidences."""
        return {"attribute_confidence": ("weighted", "imputed")}

    def _column(self, federation: Federation) -> SensitiveColumn:
        return SensitiveColumn.of(
            federation, self.column, bins=self.bins, without=self.without_columns, rows=self.public_rows
        )

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        examples, federation = context.examples, context.federation
        column, imputed = _knowledge(self, federation)
        truth, targets = column.values_of(examples.inputs), examples.targets
        margin, confidence, correct = (
            np.empty((len(context.transitions), len(examples), column.count)) for _ in range(3)
        )
        for value in range(column.count):
            logits = context.logits_of(column.with_value(examples.inputs, value))
            margin[..., value], correct[..., value] = answers(logits, targets)
            confidence[..., value] = margins(logits).max(axis=-1)
        posterior = posterior_of(margin, column.prior)
        guesses = {
            "attribute_csmia": csmia(margin, confidence, correct > 0),
            "attribute_weighted": shares_of_largest(np.log(column.prior) - losses(margin)),
        }
        if self.lomia:
            features = column.features(examples, federation.num_classes)
            guesses["attribute_lomia"] = np.stack(
                [
                    lomia(is_right > 0, margins_there, features, column.prior)
                    for is_right, margins_there in zip(correct, margin, strict=True)
                ]
            )
        guesses |= {name: np.broadcast_to(shares_of_largest(shares), margin.shape) for name, shares in imputed.items()}
        is_unknown = np.isnan(margin).any(axis=-1) | (truth < 0)
        found = {name: np.where(is_unknown, np.nan, at_truth(shares, truth)) for name, shares in guesses.items()}
        found["attribute_exposure"] = np.where(is_unknown, np.nan, exposure_of(margin, truth))
        found["attribute_over_imputation"] = found["attribute_weighted"] - found["attribute_imputed"]
        if not self.lomia:
            found["attribute_lomia"] = np.full(is_unknown.shape, np.nan)
        surest = np.broadcast_to(imputed["attribute_imputed"].max(axis=-1), is_unknown.shape)
        found["attribute_confidence"] = np.where(
            is_unknown[..., None], np.nan, np.stack([posterior.max(axis=-1), surest], axis=-1)
        )
        return found


def at_truth(shares: FloatArray, truth: IntArray) -> FloatArray:
    """(T, n) the entries of (T, n, V) at the true value (n,) of each example."""
    return np.asarray(shares[:, np.arange(len(truth)), truth])


def csmia(margin: FloatArray, confidence: FloatArray, is_right: Any) -> FloatArray:
    """(..., V) the probability that CSMIA guesses each value.

    Args:
        margin: (..., V) the margin of the record's label if the column has this value.
        confidence: (..., V) the largest margin of any label, that of the answer.
        is_right: (..., V) whether the answer is the label.

    Examples:
        >>> csmia(np.array([[2.0, 1.0]]), np.array([[2.0, 1.0]]), np.array([[True, True]])).tolist()
        [[1.0, 0.0]]
        >>> csmia(np.array([[-2.0, -1.0]]), np.array([[2.0, 1.0]]), np.array([[False, False]])).tolist()
        [[0.0, 1.0]]
    """
    scores = np.where(is_right.any(axis=-1, keepdims=True), np.where(is_right, margin, -np.inf), -confidence)
    return shares_of_largest(np.where(np.isnan(margin).any(axis=-1, keepdims=True), np.nan, scores))


def lomia(is_right: Any, margin: FloatArray, features: FloatArray, prior: FloatArray) -> FloatArray:
    """(n, V) the probability that LOMIA guesses each value, at one model.

    Args:
        is_right: (n, V) whether the model answers the label of the record if the column has this value.
        margin: (n, V), NaN where the model has diverged.
        features: (n, d) what the attacker knows of each record.
        prior: (V,) the prior of the values.
    """
    count = len(prior)
    is_known = ~np.isnan(margin).any(axis=-1)
    is_single = is_known & (is_right.sum(axis=-1) == 1)
    guess = np.full(is_right.shape, np.nan)
    guess[is_known] = shares_of_largest(prior)
    guess[is_single] = is_right[is_single]
    asked = is_known & ~is_single
    if is_single.any() and asked.any():
        values = is_right[is_single].argmax(axis=-1)
        guess[asked] = shares_of_largest(logistic_probabilities(features[is_single], values, features[asked], count))
    return guess


def posterior_of(margin: FloatArray, prior: FloatArray) -> FloatArray:
    """(..., V) prior(v) p(y | v), normalised over values.

    >>> posterior_of(np.zeros((1, 2)), np.array([0.25, 0.75])).round(3).tolist()
    [[0.25, 0.75]]
    """
    from scipy.special import softmax

    return np.asarray(softmax(np.log(prior) - losses(margin), axis=-1))


def exposure_of(margin: FloatArray, truth: IntArray) -> FloatArray:
    """(T, n) log2 V − log2 rank of the true value by p(y | v): rank 1 + those of larger p + half of equal ones.

    >>> exposure_of(np.array([[[3.0, 1.0, 0.0, 0.0]]]), np.array([0])).tolist()
    [[2.0]]
    """
    own = at_truth(margin, truth)[..., None]
    rank = 1 + (margin > own).sum(axis=-1) + 0.5 * ((margin == own).sum(axis=-1) - 1)
    return np.asarray(np.log2(margin.shape[-1]) - np.log2(rank))


_KNOWN: dict[tuple[int, AttributeInference], tuple[SensitiveColumn, dict[str, FloatArray]]] = {}
"""The knowledge of an attacker in each federation that exists; formed once."""


def _knowledge(signal: AttributeInference, federation: Federation) -> tuple[SensitiveColumn, dict[str, FloatArray]]:
    """The column, and the probabilities (n, V) of each way of imputation for the audit examples."""
    key = id(federation), signal
    if key not in _KNOWN:
        column, examples = signal._column(federation), federation.audit.examples
        _KNOWN[key] = column, imputations(column, federation.num_classes, examples)
        weakref.finalize(federation, _KNOWN.pop, key, None)
    return _KNOWN[key]


def imputations(column: SensitiveColumn, num_classes: int, examples: Any) -> dict[str, FloatArray]:
    """Baseline -> (n, V) the probabilities of the values of each example without any model; NaN with too few rows."""
    public = column.public
    features, asked = column.features(public, num_classes), column.features(examples, num_classes)
    values = column.values_of(public.inputs)

    def fitted_to(rows: int) -> FloatArray:
        if rows > len(public):
            return np.full((len(asked), column.count), np.nan)
        return logistic_probabilities(features[:rows], values[:rows], asked, column.count)

    return {
        "attribute_mode": np.broadcast_to(column.prior, (len(asked), column.count)),
        "attribute_imputed": fitted_to(len(public)),
        **{f"attribute_imputed_{size}": fitted_to(size) for size in SIZES},
    }
