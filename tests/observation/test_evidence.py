"""Margins and ranks against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import Params
from fedmem.contracts.audit_set import AuditSet, References
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Transition
from fedmem.modalities.scores import answers, losses, margins, margins_of
from fedmem.observation.evidence import _count, evidence_of, rank_of
from fedmem.training.one_by_one import OneByOne


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-60, 60), min_size=2, max_size=8))
def test_margin_is_the_log_odds_of_the_class(logits: list[float]) -> None:
    z = np.array(logits, dtype=np.longdouble)
    found = margins(np.array([logits]))[0]
    for c in range(len(z)):
        expected = z[c] - np.log(np.exp(np.delete(z, c)).sum())
        assert float(found[c]) == pytest.approx(float(expected), rel=1e-10, abs=1e-9)


def test_margins_survive_where_probabilities_do_not() -> None:
    """At a gap of 900 nats every probability is 0 or 1 in float64; the margin still tells how sure."""
    found = margins(np.array([[900.0, 0.0, 0.0], [1800.0, 0.0, 0.0]]))
    np.testing.assert_allclose(found[:, 0], [900 - np.log(2), 1800 - np.log(2)])
    np.testing.assert_allclose(found[:, 1], [-900, -1800])


def test_equal_logits_and_nan() -> None:
    np.testing.assert_allclose(margins(np.zeros((1, 4)))[0], -np.log(3))
    assert np.isnan(margins(np.array([[np.nan, 0.0]]))).all()


@pytest.mark.parametrize("classes", [2, 3, 10, 17, 62])
def test_equal_rows_have_equal_bits_wherever_they_stand(classes: int) -> None:
    """Ranks count ties, so the same logits must give the same margin in any batch, asked for in either way."""
    row = np.random.default_rng(classes).normal(size=classes) * 3
    expected = margins(row[None])[0]
    for n in (1, 2, 3, 5, 8, 1003):
        rows = np.broadcast_to(row, (2, n, classes))
        assert len(np.unique(margins(rows).reshape(-1, classes), axis=0)) == 1
        for label in range(classes):
            assert (margins_of(rows, np.full(n, label)) == expected[label]).all()


def test_margins_of_some_classes_are_those_of_all() -> None:
    logits = np.random.default_rng(0).standard_normal((3, 4, 6))
    np.testing.assert_array_equal(margins(logits, np.array([1, 4])), margins(logits)[..., [1, 4]])
    np.testing.assert_array_equal(margins(logits, np.arange(6)[::-1].copy()), margins(logits)[..., ::-1])


def test_two_classes_that_share_the_first_place() -> None:
    found = margins(np.array([[5.0, 5.0, -700.0], [5.0, np.nextafter(5.0, 6.0), -700.0]]))
    np.testing.assert_allclose(found[0, :2], 0, atol=1e-15)
    assert found[1, 1] > 0 > found[1, 0]


def test_loss_is_cross_entropy() -> None:
    z = np.random.default_rng(0).normal(size=(50, 7)) * 4
    expected = nn.functional.cross_entropy(torch.from_numpy(z), torch.full((50,), 2), reduction="none")
    np.testing.assert_allclose(losses(margins(z)[:, 2]), expected.numpy(), rtol=1e-12, atol=1e-14)
    assert losses(np.array([800.0]))[0] == 0.0
    assert losses(np.array([-800.0]))[0] == 800.0


def model_and_transitions(count: int) -> tuple[nn.Module, list[Transition]]:
    rng = np.random.default_rng(1)
    model = nn.Sequential(nn.Linear(3, 4))
    params: list[Params] = [
        {
            "0.weight": torch.from_numpy(rng.normal(size=(4, 3)).astype(np.float32)),
            "0.bias": torch.from_numpy(rng.normal(size=4).astype(np.float32)),
        }
        for _ in range(count)
    ]
    return model, [
        Transition(run=r, round=2, level="local", client=r % 2, before=p, sent=p, kept=p, num_examples=1)
        for r, p in enumerate(params)
    ]


def test_evidence_and_ranks_equal_a_naive_loop() -> None:
    rng = np.random.default_rng(2)
    model, transitions = model_and_transitions(5)
    m = 12
    examples = Examples(inputs=rng.random((m, 3), dtype=np.float32), targets=rng.integers(0, 4, m), ids=np.arange(m))
    audit = AuditSet(
        examples=examples,
        kind=np.array(["pattern"] * 8 + ["typical"] * 4),
        role=np.array(["canary"] * 8 + ["typical"] * 4),
        owner=np.arange(m, dtype=np.int32) % 2,
        copies=np.ones(m, dtype=np.int32),
        is_in=np.ones((5, m), dtype=bool),
    )
    references = References(family="pattern", inputs=rng.random((40, 3), dtype=np.float32))
    # a reference equal to a canary is a tie
    references.inputs[7] = examples.inputs[0]
    executor = OneByOne(model, Sgd(), examples)
    models = [t.kept for t in transitions]
    own = evidence_of(models, transitions, "audit", examples, executor)
    ranks = rank_of(models, transitions, references, audit, own, executor)
    assert ranks.count == 40
    assert ranks.subjects.tolist() == list(range(8))
    assert own.run.tolist() == [0, 1, 2, 3, 4]
    for t, params in enumerate(models):

        def margin_of(x: np.ndarray, y: int, params: Params = params) -> float:
            z = (params["0.weight"] @ torch.from_numpy(x) + params["0.bias"]).double().numpy()
            return float(z[y] - np.log(np.exp(np.delete(z, y)).sum()))

        for j in range(m):
            y = int(examples.targets[j])
            assert own.margin[t, j] == pytest.approx(margin_of(examples.inputs[j], y), rel=1e-5, abs=1e-6)
            z = (params["0.weight"] @ torch.from_numpy(examples.inputs[j]) + params["0.bias"]).numpy()
            assert own.correct[t, j] == (z.argmax() == y)
        for j in range(8):
            y = int(examples.targets[j])
            others = np.array([margin_of(x, y) for x in references.inputs])
            away = np.abs(others - own.margin[t, j]) > 1e-5
            smaller_loss = int((others[away] > own.margin[t, j]).sum())
            assert smaller_loss <= ranks.less[t, j] <= smaller_loss + int((~away).sum())
            assert ranks.ties[t, j] == (1 if j == 0 else 0)


def test_quantiles_only_where_the_client_holds_such_a_canary() -> None:
    model, transitions = model_and_transitions(2)
    examples = Examples(inputs=np.ones((2, 3), np.float32), targets=np.array([0, 3]), ids=np.arange(2))
    audit = AuditSet(
        examples=examples,
        kind=np.array(["pattern", "pattern"]),
        role=np.array(["canary", "canary"]),
        owner=np.array([0, 1], dtype=np.int32),
        copies=np.ones(2, dtype=np.int32),
        is_in=np.ones((2, 2), dtype=bool),
    )
    references = References(family="pattern", inputs=np.random.default_rng(3).random((300, 3), dtype=np.float32))
    executor = OneByOne(model, Sgd(), examples)
    models = [t.kept for t in transitions]
    own = evidence_of(models, transitions, "audit", examples, executor)
    found = rank_of(models, transitions, references, audit, own, executor)
    assert found.labels.tolist() == [0, 3]
    assert np.isfinite(found.quantiles[0, 0]).all()
    assert np.isnan(found.quantiles[0, 1]).all()
    assert np.isnan(found.quantiles[1, 0]).all()
    assert (np.diff(found.quantiles[1, 1]) >= 0).all()


def test_references_that_are_lost_are_above_all_others() -> None:
    """A model about to diverge is lost on some references: as before, NaN stands last in their order."""
    ordered = np.array([[0.0, 1.0, 2.0, *[np.nan] * 5]])
    asked = np.array([[0.5, 2.0, -1.0, 9.0]])
    assert _count(ordered, asked, strictly=False).tolist() == [[1, 3, 0, 3]]
    assert _count(ordered, asked, strictly=True).tolist() == [[1, 2, 0, 3]]


def test_a_model_of_nan_is_never_right_and_has_no_rank() -> None:
    model, transitions = model_and_transitions(1)
    broken: Params = {name: torch.full_like(value, torch.nan) for name, value in transitions[0].kept.items()}
    examples = Examples(inputs=np.ones((1, 3), np.float32), targets=np.array([0]), ids=np.arange(1))
    executor = OneByOne(model, Sgd(), examples)
    own = evidence_of([broken], transitions, "audit", examples, executor)
    assert np.isnan(own.margin).all()
    assert not own.correct.any()
    audit = AuditSet(
        examples=examples,
        kind=np.array(["p"]),
        role=np.array(["canary"]),
        owner=np.zeros(1, np.int32),
        copies=np.ones(1, np.int32),
        is_in=np.ones((1, 1), bool),
    )
    references = References(family="p", inputs=np.ones((5, 3), np.float32))
    assert rank_of([broken], transitions, references, audit, own, executor).less[0, 0] == -1


def test_half_of_the_work_gives_the_same_bits_as_all_of_it() -> None:
    """Ties, infinities and NaN included, against all margins and a count of those that are beaten."""
    rng = np.random.default_rng(0)
    hard = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 3.0, 700.0, -700.0])
    logits = np.where(
        rng.random((40, 50, 5)) < 0.3, rng.choice(hard, (40, 50, 5)), 4 * rng.standard_normal((40, 50, 5))
    )
    labels = rng.integers(0, 5, 50)
    before = logits.copy()
    margin, correct = answers(logits, labels)
    own = np.take_along_axis(logits, labels[None, :, None], axis=2)
    np.testing.assert_array_equal(margin, np.take_along_axis(margins(logits), labels[None, :, None], axis=2)[..., 0])
    np.testing.assert_array_equal(correct, (own > logits).sum(axis=2) == 4)
    np.testing.assert_array_equal(logits, before)
    assert 0 < correct.mean() < 1
