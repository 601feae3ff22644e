"""What tests of membership share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals
from fedmem.estimation.roc import auc
from tests.banks import signals


def everything(scores: FloatArray, is_in: BoolArray) -> float:
    return auc(scores, is_in).value


def granted(margin: FloatArray, is_in: BoolArray, population: FloatArray, seed: int = 0) -> Signals:
    """All that an attack may declare, of two classes; every signal follows from the margin."""
    rng = np.random.default_rng(seed)
    m, n = margin.shape[1], population.shape[1]
    with np.errstate(invalid="ignore"):
        loss = np.logaddexp(0, -margin)
    probability = np.exp(-loss)
    named = {
        "modified_entropy": loss,
        "min_k": -loss,
        "min_k_plus_plus": -loss,
        "noise_robustness": probability,
        "grad_norm": 1 - probability,
        "last_layer_norm": 1 - probability,
        **{f"probability.{k}": np.where(np.arange(m) % 2 == k, probability, 1 - probability) for k in range(2)},
    }
    return replace(
        signals(margin, is_in, population),
        labels=np.arange(m) % 2,
        population_labels=np.arange(n) % 2,
        correct=np.where(np.isnan(margin), np.nan, margin > 0),
        inputs=rng.normal(size=(m, 3)).astype(np.float32),
        population_inputs=rng.normal(size=(n, 3)).astype(np.float32),
        initial=np.broadcast_to(1 + 0.1 * np.arange(m) / m, margin.shape),
        signals=named,
    )


def shuffled(whole: Signals, order: list[int]) -> Signals:
    """The same with the audit examples in another order."""
    return replace(
        whole,
        margin=whole.margin[:, order],
        is_in=whole.is_in[:, order],
        model=None if whole.model is None else whole.model[order],
        labels=None if whole.labels is None else whole.labels[order],
        correct=None if whole.correct is None else whole.correct[:, order],
        inputs=None if whole.inputs is None else whole.inputs[order],
        initial=None if whole.initial is None else whole.initial[:, order],
        signals={name: values[:, order] for name, values in whole.signals.items()},
    )


def null_aucs(scores: list[tuple[FloatArray, BoolArray]]) -> tuple[float, float]:
    """Mean AUC over simulations, and its standard error."""
    areas = np.array([everything(values, coins) for values, coins in scores])
    return float(areas.mean()), float(areas.std() / np.sqrt(len(areas)))
