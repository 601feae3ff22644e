"""Tests of `fedmem/estimation/learning.py`: its error rate by simulation, and every kind of data that has an edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Bank, Evidence
from fedmem.contracts.measurement import Level
from fedmem.estimation.learning import ALPHA, Learning, check_learning, learning_of_stored, learning_warnings, p_better

NONE = Examples(inputs=np.zeros((0, 1)), targets=np.zeros(0, np.int64), ids=np.zeros(0, np.int64))


def examples(targets: Any) -> Examples:
    targets = np.asarray(targets)
    return Examples(inputs=np.zeros((len(targets), 1)), targets=targets, ids=np.arange(len(targets)))


def block(name: str, correct: Any, *, level: Level = "global", clients: Any = None, margin: float = 0.0) -> Evidence:
    values = np.asarray(correct)
    runs = np.arange(len(values)) if clients is None else np.zeros(len(values))
    places = np.full(len(values), -1) if clients is None else np.asarray(clients)
    margins = np.full(values.shape, margin)
    return Evidence(
        round=3, level=level, set=name, run=runs.astype(np.int32), client=places.astype(np.int32),
        loss=margins, margin=margins, correct=values,
    )  # fmt: skip


def audit_of(targets: Any, *, runs: int, role: str = "typical", owner: Any = 0) -> AuditSet:
    rows = examples(targets)
    m = len(rows)
    return AuditSet(
        examples=rows, kind=np.full(m, role), role=np.full(m, role), owner=np.broadcast_to(owner, m).astype(np.int32),
        copies=np.ones(m, np.int32), is_in=np.ones((runs, m), dtype=bool),
    )  # fmt: skip


def check(
    blocks: Sequence[Evidence], test: Examples = NONE, population: Examples = NONE, audit: AuditSet | None = None
) -> Learning:
    held = audit or audit_of(np.zeros(0, np.int64), runs=8)
    bank = Bank(audit=held, evidence=tuple(blocks), references=(), participation=(), seed=0)
    (learning,) = check_learning(bank, test, population)
    return learning


@pytest.mark.parametrize("shares", [(1 / 3, 1 / 3, 1 / 3), (0.6, 0.3, 0.1), (0.5, 0.5)])
@pytest.mark.parametrize("alike", [True, False], ids=["alike", "apart"])
@pytest.mark.parametrize("n", [16, 60])
def test_models_at_chance_are_flagged(shares: tuple[float, ...], alike: bool, n: int) -> None:
    """At most 2.5 % are missed, and so at most 23 of 500 but for a probability below 0.003."""
    rng = np.random.default_rng(5)
    missed = 0
    for _ in range(500):
        labels = rng.choice(len(shares), n, p=shares)
        answers = rng.choice(len(shares), (1 if alike else 6, n), p=shares)
        correct = np.broadcast_to(answers == labels, (6, n))
        missed += check([block("test", correct)], examples(labels)).verdict == "learnt"
    assert missed <= 23


@pytest.mark.parametrize("runs", [2, 4, 8, 16])
@pytest.mark.parametrize("separation", [0.0, 2.0])
def test_untrained_networks_are_flagged(runs: int, separation: float) -> None:
    """Linear networks with random weights, two equally frequent classes: at most 5 % of 400 are missed.

    Their luck is shared by all examples. The test over examples alone is fooled, which the last lines show.
    """
    rng = np.random.default_rng(runs)
    labels = np.repeat([0, 1], 40)
    missed = fooled = 0
    for _ in range(400):
        inputs = rng.normal(size=(80, 10))
        inputs[:, 0] += separation * (2 * labels - 1)
        answers = inputs @ rng.uniform(-1, 1, (10, runs)) + rng.uniform(-1, 1, runs) > 0
        learning = check([block("test", labels == answers.T)], examples(labels))
        missed += learning.verdict == "learnt"
        fooled += learning.p <= ALPHA
    assert missed <= 20
    if separation and runs <= 8:
        assert fooled > 20


def test_fits_of_untrained_networks_are_flagged() -> None:
    """The same for the audit examples that they were trained on, without held-out rows."""
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 20)
    missed = 0
    for _ in range(200):
        inputs = rng.normal(size=(40, 10))
        inputs[:, 0] += 2 * (2 * labels - 1)
        answers = inputs @ rng.uniform(-1, 1, (10, 8)) + rng.uniform(-1, 1, 8) > 0
        audit = audit_of(labels, runs=8)
        missed += check([block("audit", labels == answers.T)], audit=audit).verdict == "fitted"
    assert missed <= 10


def test_few_equal_runs_are_judged_by_their_examples() -> None:
    labels = np.repeat([0, 1], 40)
    for runs, p in ((1, None), (2, None), (6, 0.5**6)):
        learning = check([block("test", np.ones((runs, 80), bool))], examples(labels))
        assert learning.verdict == "learnt"
        assert math.isnan(learning.p_of_runs) if p is None else learning.p_of_runs == p


def test_constant_and_diverged_models_are_flagged() -> None:
    labels = np.repeat([0, 1, 2], 20)
    for answer in (0, 1):
        constant = check([block("test", np.tile(labels == answer, (8, 1)))], examples(labels))
        assert (constant.verdict, constant.constant, constant.p) == (
            "not shown",
            1 / 3,
            1.0 if answer == 0 else constant.p,
        )
    lost = check([block("test", np.ones((8, 60), bool), margin=math.nan)], examples(labels))
    assert (lost.verdict, lost.models) == ("not shown", 0)
    assert math.isnan(lost.accuracy)


def test_models_above_chance_are_not_flagged() -> None:
    rng = np.random.default_rng(6)
    flagged = 0
    for _ in range(200):
        labels = rng.integers(0, 3, 60)
        correct = rng.random((6, 60)) < 0.7
        flagged += check([block("test", correct)], examples(labels)).verdict != "learnt"
    assert flagged <= 4


def test_always_the_most_frequent_label_is_no_learning() -> None:
    """An accuracy of 90 % is nothing where 90 % have one label."""
    labels = np.array([0] * 90 + [1] * 10)
    frequent = check([block("test", np.tile(labels == 0, (4, 1)))], examples(labels))
    assert (frequent.accuracy, frequent.constant, frequent.answer, frequent.verdict) == (0.9, 0.9, 0, "not shown")
    assert check([block("test", np.ones((4, 100), bool))], examples(labels)).verdict == "learnt"


def test_texts_are_compared_with_the_commonest_token() -> None:
    targets = np.tile([7, 7, 5, -1], (12, 1))
    for share, verdict in ((2 / 3, "not shown"), (1.0, "learnt")):
        text = check([block("test", np.full((4, 12), share))], examples(targets))
        assert (text.verdict, text.answer) == (verdict, 7)
        assert text.constant == pytest.approx(2 / 3)


@pytest.mark.parametrize("labels", [[0] * 40, [0, 0, 1, 2, 1]], ids=["one class", "tiny"])
def test_too_few_other_labels_are_undefined(labels: list[int]) -> None:
    learning = check([block("test", np.ones((4, len(labels)), bool))], examples(labels))
    assert learning.verdict == "undefined"
    assert not [*learning_warnings([learning])]


def test_without_a_test_set_reference_data_are_asked() -> None:
    labels = np.repeat([0, 1, 2], 20)
    learning = check([block("population", np.tile(labels == 0, (8, 1)))], population=examples(labels))
    assert (learning.on, learning.verdict) == ("population", "not shown")
    assert "over held-out rows" in " ".join(learning_warnings([learning]))


@pytest.mark.parametrize(("role", "verdict"), [("typical", "not shown"), ("canary", "undefined")])
def test_without_held_out_rows_ordinary_ones_decide(role: str, verdict: str) -> None:
    """A random pattern that a model has not memorised shows nothing about what it has learnt."""
    labels = np.repeat([0, 1, 2], 10)
    audit = audit_of(labels, runs=8, role=role)
    assert check([block("audit", np.tile(labels == 0, (8, 1)))], audit=audit).verdict == verdict
    assert check([block("audit", np.ones((8, 30), bool))], audit=audit).verdict == "fitted"


def test_fitting_audit_rows_alone_is_not_flagged() -> None:
    labels = np.repeat([0, 1, 2], 10)
    blocks = [block("audit", np.ones((8, 30), bool)), block("test", np.tile(labels == 0, (8, 1)))]
    fitted = check(blocks, examples(labels), audit=audit_of(labels, runs=8, role="canary"))
    assert fitted.verdict == "fitted"
    assert not [*learning_warnings([fitted])]


def test_a_client_is_compared_with_its_own_commonest_label() -> None:
    """Clients of one class each know it from their rows, which shows nothing."""
    labels, owner = np.repeat([0, 1, 2], 10), np.repeat([0, 1, 2], 10)
    audit = audit_of(labels, runs=1, owner=owner)
    own_class = np.array([[label == client for label in labels] for client in range(3)])
    assert check([block("audit", own_class, level="local", clients=[0, 1, 2])], audit=audit).p_of_audit == 1
    mixed = audit_of(np.tile([0, 1], 15), runs=1, owner=owner)
    right = np.ones((3, 30), dtype=bool)
    assert check([block("audit", right, level="local", clients=[0, 1, 2])], audit=mixed).p_of_audit < 1e-5


def test_warning_names_the_levels_and_no_number() -> None:
    labels = np.repeat([0, 1, 2], 20)
    flagged = check([block("test", np.tile(labels == 0, (8, 1)))], examples(labels))
    (both,) = learning_warnings([cast("Any", flagged), learning_of_stored({**vars(flagged), "level": "local"})])
    (one,) = learning_warnings([flagged])
    assert both.startswith("models are not shown to have learnt. ")
    assert (
        "answer: the aggregate, over test examples and runs; the clients' models, over test examples and runs." in both
    )
    assert "answer: the aggregate, over test examples and runs." in one
    assert "memorises nothing" not in both
    assert not any(character.isdigit() for character in both), "a comparison shows each warning once for all seeds"


def test_p_is_that_of_student() -> None:
    """Of three 1 and one 0 the mean is 0.75 and t is 3, with 3 degrees of freedom."""
    assert p_better(np.array([1.0, 1.0, 1.0, 0.0])) == pytest.approx(0.02883, abs=1e-5)
    assert p_better(np.array([-1.0, -1.0, -1.0, 0.0])) == pytest.approx(1 - 0.02883, abs=1e-5)


def test_the_summary_names_the_failed_test_with_its_p() -> None:
    labels = np.repeat([0, 1, 2], 20)
    flagged = check([block("test", np.tile(labels == 0, (8, 1)))], examples(labels))
    over_examples = replace(flagged, p=0.22, p_of_runs=0.001)
    (text,) = learning_warnings([over_examples], numbers=True)
    assert "the aggregate, over test examples (p 0.22)." in text
    (text,) = learning_warnings([replace(flagged, p=0.001, p_of_runs=0.3)], numbers=True)
    assert "the aggregate, over runs (p 0.3)." in text
