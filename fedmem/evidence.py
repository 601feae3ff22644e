"""What models say about examples: margins in float64, and the rank of canaries among fresh references."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmem.training import Executor
from fedmem.types import (
    AuditSet,
    BoolArray,
    Evidence,
    Examples,
    FloatArray,
    Params,
    ReferenceEvidence,
    References,
    Transition,
)

QUANTILES = 256
"""How many quantiles of the reference losses are stored for each label."""

SMALLEST_SUM = 1e-290
"""Below this a sum of powers has lost digits to underflow and is formed again around its own largest term."""

MODELS_AT_ONCE = 32
"""Models whose logits are held at the same time."""


def margins(logits: FloatArray) -> FloatArray:
    """Of every class c, `log p_c - log sum_{d != c} p_d`, from logits (..., C): (..., C) float64.

    Computed as `z_c - logsumexp_{d != c} z_d`. The sum without c is formed by subtraction only where c is not the
    largest, so that nothing cancels. -inf .. inf, higher means surer of c; NaN logits give NaN.

    >>> margins(np.log(np.array([[0.75, 0.125, 0.125]]))).round(6).tolist()
    [[1.098612, -1.94591, -1.94591]]
    """
    z = np.asarray(logits, dtype=np.float64)
    top = z.argmax(axis=-1)[..., None]
    shifted = z - np.take_along_axis(z, top, axis=-1)
    powers = np.exp(shifted)
    with np.errstate(divide="ignore", invalid="ignore"):
        result = shifted - np.log(powers.sum(axis=-1, keepdims=True) - powers)
        np.put_along_axis(powers, top, 0.0, axis=-1)
        rest = powers.sum(axis=-1, keepdims=True)
        own = -np.log(rest)
        if np.any(rest < SMALLEST_SUM):
            np.put_along_axis(shifted, top, -np.inf, axis=-1)
            second = shifted.max(axis=-1, keepdims=True)
            careful = -second - np.log(np.exp(shifted - second).sum(axis=-1, keepdims=True))
            own = np.where(rest < SMALLEST_SUM, careful, own)
        np.put_along_axis(result, top, own, axis=-1)
    return np.asarray(result)


def losses(margin: FloatArray) -> FloatArray:
    """Cross-entropy `-log p_y = log(1 + exp(-margin))` in nats, exact for any margin.

    >>> losses(np.array([0.0, 40.0])).tolist() == [float(np.log(2.0)), float(np.log1p(np.exp(-40.0)))]
    True
    """
    with np.errstate(invalid="ignore"):
        return np.logaddexp(0.0, -margin)


def evidence_of(
    models: Sequence[Params], transitions: Sequence[Transition], name: str, examples: Examples, executor: Executor
) -> Evidence:
    """Loss, margin and correctness of every model on every example of a set."""
    margin = np.empty((len(models), len(examples)))
    correct = np.empty(margin.shape, dtype=bool)
    labels = examples.targets[None, :, None]
    for start in range(0, len(models), MODELS_AT_ONCE):
        logits = executor.logits(models[start : start + MODELS_AT_ONCE], examples.inputs)
        part = slice(start, start + len(logits))
        own = np.take_along_axis(logits, np.broadcast_to(labels, (*logits.shape[:2], 1)), axis=2)
        margin[part] = np.take_along_axis(margins(logits), np.broadcast_to(labels, own.shape), axis=2)[..., 0]
        rivals = np.array(logits)
        np.put_along_axis(rivals, np.broadcast_to(labels, own.shape), -np.inf, axis=2)
        correct[part] = own[..., 0] > rivals.max(axis=2)
    run, client = _places(transitions)
    first = transitions[0]
    return Evidence(
        round=first.round,
        level=first.level,
        set=name,
        run=run,
        client=client,
        loss=losses(margin),
        margin=margin,
        correct=correct,
    )


def rank_of(
    models: Sequence[Params],
    transitions: Sequence[Transition],
    references: References,
    audit: AuditSet,
    own: Evidence,
    executor: Executor,
) -> ReferenceEvidence:
    """Where each canary of a family ranks by loss among fresh references, under the label of that canary.

    Comparing margins is comparing losses, and never saturates. A margin of NaN is stored as `less` = -1.
    """
    subjects = np.flatnonzero(audit.kind == references.family)
    targets = audit.examples.targets[subjects]
    labels = np.unique(targets)
    count = len(references.inputs)
    less = np.empty((len(models), len(subjects)), dtype=np.int32)
    ties = np.empty_like(less)
    quantiles = np.full((len(models), len(labels), QUANTILES), np.nan, dtype=np.float32)
    places = np.round(np.linspace(0, count - 1, QUANTILES)).astype(np.int64)
    run, client = _places(transitions)
    holds = {(int(h), int(y)) for h, y in zip(audit.holder[subjects], targets, strict=True)}
    for start in range(0, len(models), MODELS_AT_ONCE):
        found = margins(executor.logits(models[start : start + MODELS_AT_ONCE], references.inputs))
        for column, label in enumerate(labels):
            chosen = np.flatnonzero(targets == label)
            ordered = np.sort(found[:, :, label], axis=1)
            for i in range(len(found)):
                t = start + i
                asked = own.margin[t, subjects[chosen]]
                right = np.searchsorted(ordered[i], asked, side="right")
                ties[t, chosen] = right - np.searchsorted(ordered[i], asked, side="left")
                less[t, chosen] = np.where(np.isnan(asked), -1, count - right)
                if client[t] < 0 or (int(client[t]), int(label)) in holds:
                    quantiles[t, column] = losses(ordered[i][::-1][places])
    first = transitions[0]
    return ReferenceEvidence(
        round=first.round,
        level=first.level,
        family=references.family,
        run=run,
        client=client,
        subjects=subjects,
        count=count,
        less=less,
        ties=ties,
        labels=labels,
        quantiles=quantiles,
    )


def accuracy(evidence: Evidence) -> float:
    """Share of (model, example) pairs that are correct; NaN without any."""
    correct: BoolArray = evidence.correct
    return float(correct.mean()) if correct.size else float("nan")


def _places(transitions: Sequence[Transition]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return (
        np.array([transition.run for transition in transitions], dtype=np.int32),
        np.array([transition.client for transition in transitions], dtype=np.int32),
    )
