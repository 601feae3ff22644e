"""Variance of gradients (VoG): how much the slope of an example's logit in its input changes over training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, SignalLevel, signal_measures

_PARTS = ("early", "middle", "late")
"""The thirds of the rounds."""

_SUMS = ("count", "sum", "squares")

_TITLES = {"": "", "_early": ", first third of the rounds", "_late": ", last third of the rounds"}


@dataclass(frozen=True, kw_only=True)
class GradientVariance:
    """VoG: S_t = ∂z_y/∂x, the slope of the label's logit before the softmax; its deviation over rounds t, from 0.

    For each value of the input, the deviation over K rounds is √(1/K Σ (S_t − S̄)²); VoG is its mean over all values.
    Rounds are the observed ones from 1 at which the place has a model: of the aggregate, or of a client that took
    part. The initial model counts nowhere.

    - `gradient_variance`: all rounds so far;
    - `gradient_variance_early` and `gradient_variance_late`: those of the first and the last third of the scenario.

    NaN with fewer than two rounds.

    Fields

    - `by_class`: standardise over the audit examples of each class, as published: minus the mean of the class, divided
      by its deviation. NaN for a class with fewer than two examples or without spread.
    - `others`: read it at the models of clients that do not hold the example as well.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> GradientVariance().owners_only
    True

    Reference: Agarwal, D'souza and Hooker (2022), Estimating example difficulty using variance of gradients.
    """

    measures: ClassVar[tuple[Measure, ...]] = tuple(
        measure
        for ending, text in _TITLES.items()
        for measure in signal_measures(
            Measure(
                name=f"gradient_variance{ending}",
                title=f"variance of gradients{text}",
                means="Mean deviation, over observed rounds, of the slope of the label's logit in the input.",
                is_not="It is not the variance of gradients in the parameters.",
                digits=4,
            )
        )
    )
    passes: ClassVar[float] = 3.0
    texts: ClassVar[bool] = False
    held: ClassVar[int] = 7

    by_class: bool = False
    others: bool = False
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[SignalLevel, ...] = ("local", "global")

    @property
    def owners_only(self) -> bool:
        """Unless others are asked for."""
        return not self.others

    def start(self, context: SignalContext, position: int) -> dict[str, NDArray[Any]]:
        """No rounds yet: which examples are read, and of each third counts, sums and sums of squares."""
        asked = np.ones(len(context.examples), dtype=bool) if self.others else context.is_owner()[position]
        rows = np.flatnonzero(asked)
        empty = np.zeros((len(rows), math.prod(context.examples.inputs.shape[1:])))
        state: dict[str, NDArray[Any]] = {"rows": rows, "first": np.full_like(empty, np.nan)}
        for part in _PARTS:
            state |= {f"{part} count": np.zeros(1), f"{part} sum": empty.copy(), f"{part} squares": empty.copy()}
        return state

    def update(self, state: dict[str, NDArray[Any]], context: SignalContext, position: int) -> dict[str, NDArray[Any]]:
        """One more round in the third that it belongs to; the initial model has learnt nothing and is not counted."""
        from fedmem.training.derivatives import input_slopes

        rows = state["rows"]
        if context.transitions[position].round == 0:
            return state
        inputs, targets = context.examples.inputs[rows], context.examples.targets[rows]
        slope = input_slopes(context.function(position), inputs, targets, of="logit").flatten(1).numpy()
        # measured from the first slope, nothing cancels where slopes hardly change
        state["first"] = np.where(np.isnan(state["first"]), slope, state["first"])
        offset = slope - state["first"]
        part = part_of(context.transitions[position].round, context.rounds)
        state[f"{part} count"] = state[f"{part} count"] + 1
        state[f"{part} sum"] = state[f"{part} sum"] + offset
        state[f"{part} squares"] = state[f"{part} squares"] + np.square(offset)
        return state

    def values_of(self, state: Mapping[str, NDArray[Any]], context: SignalContext) -> Mapping[str, FloatArray]:
        """The mean deviation so far, of all rounds and of the first and the last third."""
        found = {}
        for ending, parts in (("", _PARTS), ("_early", _PARTS[:1]), ("_late", _PARTS[2:])):
            count, total, squares = (np.sum([state[f"{part} {what}"] for part in parts], axis=0) for what in _SUMS)
            values = np.full(len(context.examples), np.nan)
            if count[0] > 1:
                spread = np.sqrt(np.maximum(squares / count - np.square(total / count), 0.0))
                values[state["rows"]] = spread.mean(axis=1)
            found[f"gradient_variance{ending}"] = (
                standardise(values, context.examples.targets) if self.by_class else values
            )
        return found


def part_of(round_number: int, rounds: int) -> str:
    """The third of a scenario of so many rounds in which a round is.

    >>> [part_of(number, 9) for number in (1, 3, 4, 6, 7, 9)]
    ['early', 'early', 'middle', 'middle', 'late', 'late']
    """
    return _PARTS[min(2, -(-3 * round_number // rounds) - 1)]


def standardise(values: FloatArray, labels: IntArray) -> FloatArray:
    """(n,) values minus the mean of their class, divided by its deviation; NaN without two values or without spread.

    >>> standardise(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 1])).tolist()
    [-1.0, 1.0, nan]
    """
    result = np.full(len(values), np.nan)
    for label in np.unique(labels):
        rows = np.flatnonzero((labels == label) & np.isfinite(values))
        if len(rows) > 1 and values[rows].std() > 1e-12 * np.abs(values[rows]).max():
            result[rows] = (values[rows] - values[rows].mean()) / values[rows].std()
    return result
