"""Tests of `fedmem/training/row_selection.py` and of the work of clients that leave rows out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.federation import Federation
from fedmem.contracts.selection import Selection, SelectionScore
from fedmem.federation.build import build
from fedmem.training.client_work import LocalWork, stack
from fedmem.training.row_selection import RowSelection
from tests.tiny import tiny

SCENARIO: dict[str, Any] = {"client": {"kind": "selective", "share": 0.3, "batch_size": 8, "epochs": 2}}


def model_of(federation: Federation, scale: float = 0.5) -> Params:
    rng = np.random.default_rng(3)
    return {
        name: value + scale * torch.from_numpy(rng.standard_normal(value.shape).astype(np.float32))
        for name, value in federation.initial.items()
    }


def probabilities(federation: Federation, model: Params, rows: np.ndarray) -> FloatArray:
    x = torch.from_numpy(federation.store.inputs[rows])
    logits = torch.func.functional_call(federation.model, model, (x,)).detach().double()
    return np.asarray(logits.softmax(dim=1).numpy())


@pytest.mark.parametrize("by", ["loss", "el2n"])
def test_rows_with_the_largest_scores_are_left_out(by: SelectionScore) -> None:
    federation = build(tiny(**SCENARIO))
    model, rows = model_of(federation), federation.rows(0, 1, 1)
    p, labels = probabilities(federation, model, rows), federation.store.targets[rows]
    loss = -np.log(p[np.arange(len(rows)), labels])
    error = np.linalg.norm(p - np.eye(p.shape[1])[labels], axis=1)
    scores = {"loss": loss, "el2n": error}[by]
    kept = RowSelection(federation, Selection(by=by, share=0.3), 0).kept(0, 1, rows, model)
    assert len(kept) == len(rows) - int(0.3 * len(rows))
    assert (np.diff(kept) > 0).all()
    left = np.setdiff1d(np.arange(len(rows)), kept)
    assert scores[kept].max() < scores[left].min()


def test_equal_and_undefined_scores_have_an_order() -> None:
    federation = build(tiny(**SCENARIO))
    rows = np.repeat(federation.rows(0, 1, 1)[:1], 10)
    selection = RowSelection(federation, Selection(by="loss", share=0.3), 0)
    assert selection.kept(0, 1, rows, model_of(federation)).tolist() == list(range(7)), "later rows go first"
    broken = {name: value * math.nan for name, value in federation.initial.items()}
    assert selection.kept(0, 1, rows, broken).tolist() == list(range(7))
    assert selection.kept(0, 1, rows[:0], broken).tolist() == []


def test_random_rows_are_the_same_in_every_round_of_a_run() -> None:
    federation = build(tiny(**SCENARIO))
    rows = federation.rows(0, 1, 1)
    selection = RowSelection(federation, Selection(by="random", share=0.3), 0)
    first = selection.kept(0, 1, rows, model_of(federation))
    assert first.tolist() == selection.kept(0, 1, rows, model_of(federation, 2.0)).tolist()
    assert first.tolist() != selection.kept(1, 1, rows, model_of(federation)).tolist()
    left = [set(range(len(rows))) - set(selection.kept(run, 1, rows, {}).tolist()) for run in range(200)]
    shares = np.bincount([place for one in left for place in one], minlength=len(rows)) / 200
    np.testing.assert_allclose(shares, int(0.3 * len(rows)) / len(rows), atol=5 * np.sqrt(0.21 / 200))


def test_batches_are_made_of_kept_rows_alone() -> None:
    """One client and many give the same batches, and each kept row is in one batch of an epoch."""
    scenario = tiny(**SCENARIO)
    federation = build(scenario)
    work = LocalWork(federation, scenario.client, 0)
    models = [model_of(federation), model_of(federation, 1.0)]
    together = work.of(1, np.array([0, 1]), np.array([1, 2]), stack(models), np.array([1, 0]))
    for i, (run, client, model) in enumerate(((0, 1, models[1]), (1, 2, models[0]))):
        rows = federation.rows(run, client, 1)
        kept = RowSelection(federation, Selection(by="loss", share=0.3), 0).kept(run, client, rows, model)
        used = together.batches[i, : together.steps[i]]
        assert sorted(used[used >= 0].tolist()) == sorted([*rows[kept].tolist()] * 2)
        assert len(together.rows[i]) == len(rows), "it counts by all of its rows"
        task = work.task(run, 1, client, model)
        np.testing.assert_array_equal(
            np.where(task.batches >= 0, rows[task.batches], -1), used[:, : task.batches.shape[1]]
        )
    work.keep(together)
    kept = RowSelection(federation, Selection(by="loss", share=0.3), 0).kept(0, 1, together.rows[0], models[1])
    assert work.used_rows(0, 1, 1).tolist() == together.rows[0][kept].tolist()
