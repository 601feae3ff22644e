"""Losses and margins of models on audit examples, and the rank of canaries among fresh references."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray, Params
from fedmem.contracts.audit_set import AuditSet, References
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Evidence, ReferenceEvidence, Transition
from fedmem.modalities.loss import UNASKED
from fedmem.modalities.scores import answers, losses, losses_of_stored, margins, round_margins
from fedmem.modalities.text.prefix_tree import ENUMERABLE, scores
from fedmem.modalities.text.secret_space import Candidates
from fedmem.modalities.text.windows import prefix_and_start
from fedmem.training.executor import Executor

QUANTILES = 256
"""How many quantiles of the reference losses are stored for each label."""


def evidence_of(
    models: Sequence[Params],
    transitions: Sequence[Transition],
    name: str,
    examples: Examples,
    executor: Executor,
    *,
    keep: Callable[[FloatArray], object] | None = None,
    rows: IntArray | None = None,
    precision: str = "float64",
) -> Evidence:
    """Loss, margin and correctness of every model on every example of a set.

    `keep` is given the logits of one group of models after the other. `rows` are the numbers of the examples in their
    set, where they are a part of it.
    """
    at_once = executor.models_at_once(len(examples))
    parts = [
        answers_of(models[start : start + at_once], examples.inputs, examples.targets, executor, keep)
        for start in range(0, len(models), at_once)
    ]
    margin, correct = (np.concatenate(column) for column in zip(*parts, strict=True))
    # one target, and neither right nor wrong
    densities = not examples.several_targets and correct.dtype != np.bool_
    if precision == "float32":
        margin = round_margins(margin)
    run, client = _places(transitions)
    first = transitions[0]
    return Evidence(
        round=first.round,
        level=first.level,
        set=name,
        run=run,
        client=client,
        loss=losses_of_stored(margin, densities),
        margin=margin,
        correct=correct,
        rows=rows,
    )


def answers_of(
    models: Sequence[Params],
    inputs: NDArray[np.float32],
    targets: IntArray,
    executor: Executor,
    keep: Callable[[FloatArray], object] | None = None,
) -> tuple[FloatArray, BoolArray | FloatArray]:
    """`answers` of models about rows, of as many rows at a time as one forward pass takes; `keep` as in `evidence_of`.

    The logits of a large vocabulary at every place of every row would not fit into memory.
    """
    at_once = executor.rows_at_once
    parts, logits = [], []
    for start in range(0, max(1, len(inputs)), at_once):
        piece = executor.logits(models, inputs[start : start + at_once])
        parts.append(answers(piece, targets[start : start + at_once]))
        if keep is not None:
            logits.append(piece)
    if keep is not None:
        keep(np.concatenate(logits, axis=1) if len(logits) > 1 else logits[0])
    margin, correct = (np.concatenate(column, axis=1) for column in zip(*parts, strict=True))
    return margin, correct


def rank_of(
    models: Sequence[Params],
    transitions: Sequence[Transition],
    references: References,
    audit: AuditSet,
    evidence: Evidence,
    executor: Executor,
) -> ReferenceEvidence:
    """The rank by loss of each canary of a family among fresh references, under the label of that canary.

    Comparing margins is comparing losses, and never saturates. A margin of NaN is stored as `less` = -1. Passages carry
    their own targets, and may be of different lengths. For passages, the sums of -log p over all that is asked are
    compared, and the quantiles are of these sums. Where the family has a space of at most `ENUMERABLE` members, a
    canary is ranked among all members that are no canary. The references are then not looked at.
    """
    if references.space is not None and references.space.size <= ENUMERABLE:
        return _rank_among_all(models, transitions, references.family, references.space, audit, executor)
    subjects = np.flatnonzero(audit.kind == references.family)
    targets = audit.examples.labels[subjects]
    labels = np.unique(targets)
    count = len(references.inputs)
    less = np.empty((len(models), len(subjects)), dtype=np.int32)
    ties = np.empty_like(less)
    quantiles = np.full((len(models), len(labels), QUANTILES), np.nan, dtype=np.float32)
    # from the largest margin, the smallest loss, on
    places = count - 1 - np.round(np.linspace(0, count - 1, QUANTILES)).astype(np.int64)
    run, client = _places(transitions)
    column, place = _columns(targets, labels)
    is_ranked = (client < 0)[:, None] | _holds(audit.holds(client)[:, subjects], column, len(labels))
    at_once = executor.models_at_once(count) if len(labels) else len(models)
    for start in range(0, len(models) if len(labels) else 0, at_once):
        some = models[start : start + at_once]
        part = slice(start, start + len(some))
        own_score = evidence.margin[part, subjects]
        if references.targets is None:
            reference_scores = margins(executor.logits(some, references.inputs), labels)
        else:
            asked_of = (references.targets != UNASKED).sum(axis=1)
            margin, _ = answers_of(some, references.inputs, references.targets, executor)
            reference_scores = _less_sums(margin, asked_of)[..., None]
            own_score = _less_sums(own_score, audit.examples.num_targets[subjects])
        ordered = np.ascontiguousarray(reference_scores.transpose(0, 2, 1))
        ordered.sort(axis=2)
        canary_scores = np.zeros((len(reference_scores), len(labels), place.max() + 1))
        canary_scores[:, column, place] = own_score
        up_to, below = (_count(ordered, canary_scores, strictly)[:, column, place] for strictly in (False, True))
        ties[part] = up_to - below
        less[part] = np.where(np.isnan(own_score), -1, count - up_to)
        ranked_scores = ordered[is_ranked[part]]
        if references.targets is not None:
            quantiles[part][is_ranked[part]] = -ranked_scores[:, places]
        else:
            # no loss is formed twice
            quantiles[part][is_ranked[part]] = (
                losses(ranked_scores)[:, places] if count < QUANTILES else losses(ranked_scores[:, places])
            )
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


def _rank_among_all(
    models: Sequence[Params],
    transitions: Sequence[Transition],
    family: str,
    space: Candidates,
    audit: AuditSet,
    executor: Executor,
) -> ReferenceEvidence:
    """The rank of each canary among all members of its space that are none, whose losses come from their prefix tree.

    The canary's own loss is also from the tree, so that compared losses were computed alike. Other canaries, whatever
    their family, are no references. They are also trained on. As references, they would make a model that knows several
    canaries look as if it knew each of them less.
    """
    subjects = np.flatnonzero(audit.kind == family)
    texts = [prefix_and_start(*row)[0] for row in zip(audit.examples.inputs, audit.examples.targets, strict=True)]
    numbers = [space.index(texts[subject]) for subject in subjects.tolist()]
    canaries = sorted({space.index(text) for text in texts if space.has(text)})
    run, client = _places(transitions)
    is_ranked = (client < 0) | audit.holds(client)[:, subjects].any(axis=1)
    less = np.empty((len(models), len(subjects)), dtype=np.int32)
    ties = np.empty_like(less)
    quantiles = np.full((len(models), min(1, len(subjects)), QUANTILES), np.nan, dtype=np.float32)
    count = space.size - len(canaries)
    places = np.round(np.linspace(0, count - 1, QUANTILES)).astype(np.int64)
    for t, params in enumerate(models if len(subjects) else ()):
        loss = scores(executor.reader(params), space).loss
        others = np.delete(loss, canaries)
        less[t] = [
            -1 if np.isnan(canary_loss) else np.count_nonzero(others < canary_loss) for canary_loss in loss[numbers]
        ]
        ties[t] = [np.count_nonzero(others == canary_loss) for canary_loss in loss[numbers]]
        if is_ranked[t]:
            quantiles[t] = np.sort(others)[places]
    first = transitions[0]
    return ReferenceEvidence(
        round=first.round,
        level=first.level,
        family=family,
        run=run,
        client=client,
        subjects=subjects,
        count=count,
        less=less,
        ties=ties,
        labels=np.zeros(min(1, len(subjects)), dtype=np.int64),
        quantiles=quantiles,
    )


def _less_sums(margin: FloatArray, mask: IntArray) -> FloatArray:
    """The sums of log p over what is asked of passages, from their margins; equal margins give equal sums."""
    return np.asarray(-losses(margin) * mask)


def _columns(targets: IntArray, labels: IntArray) -> tuple[IntArray, IntArray]:
    """(c,) the place of the label of each canary among all, and its own place among the canaries of that label."""
    column = np.searchsorted(labels, targets)
    earlier = np.tril(column[:, None] == column, -1)
    return column, earlier.sum(axis=1)


def _holds(holds_canary: BoolArray, column: IntArray, labels: int) -> BoolArray:
    """(T, labels) whether the client of each model holds a canary of each label, from what it holds (T, c)."""
    holds_label = np.zeros((len(holds_canary), labels), dtype=bool)
    model, canary = np.nonzero(holds_canary)
    holds_label[model, column[canary]] = True
    return holds_label


def _count(ordered: FloatArray, values: FloatArray, strictly: bool) -> IntArray:
    """The number of entries of each sorted row (..., n) at most, or strictly below, each of `values` (..., c)."""
    # NaN comes last, as the largest; a search by halves would lose its way among them
    ordered = np.where(np.isnan(ordered), np.inf, ordered)
    counts = torch.searchsorted(torch.from_numpy(ordered), torch.from_numpy(values.copy()), right=not strictly)
    return np.asarray(counts.numpy())


def accuracy(evidence: Evidence) -> float:
    """Share of (model, example) pairs that are correct, of passages the mean share of tokens; NaN without any."""
    return float(evidence.correct.mean()) if evidence.correct.size else float("nan")


def _places(transitions: Sequence[Transition]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return (
        np.array([transition.run for transition in transitions], dtype=np.int32),
        np.array([transition.client for transition in transitions], dtype=np.int32),
    )
