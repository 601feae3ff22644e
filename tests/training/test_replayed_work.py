"""Tests of `fedmem/training/replayed_work.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedmem.contracts.replay import Replay
from fedmem.engines.shared_training import join_work
from fedmem.errors import ComponentError
from fedmem.training.client_work import LEFT_OUT, Work
from fedmem.training.replayed_work import replayed_work

MODEL = {"w": torch.tensor([[1.0], [2.0]])}


def work() -> Work:
    """Two clients of three and two rows, in batches of two."""
    return Work(
        round=1,
        run=np.array([0, 0]),
        client=np.array([0, 1]),
        models=MODEL,
        model=np.array([0, 1]),
        rows=(np.array([4, 5, 6]), np.array([7, 8])),
        batches=np.array([[[4, 5], [6, -1]], [[8, 7], [-1, -1]]]),
        steps=np.array([2, 1]),
    )


def test_rows_keep_their_places() -> None:
    changes = [Replay(), Replay(without=(5, 6)), Replay(extra={4: 9}), Replay(without=(7,), steps=0)]
    changed = replayed_work(work(), [0, 0, 0, 1], changes, 10)
    assert changed.batches[:, 0].tolist() == [[4, 5], [4, LEFT_OUT], [9, 5], [8, LEFT_OUT]]
    assert changed.batches[:, 1].tolist() == [[6, -1], [LEFT_OUT, -1], [6, -1], [-1, -1]]
    assert [rows.tolist() for rows in changed.rows] == [[4, 5, 6], [4], [9, 5, 6], [8]]
    assert changed.steps.tolist() == [2, 2, 2, 0]
    assert changed.models is MODEL
    assert work().batches.tolist() == [[[4, 5], [6, -1]], [[8, 7], [-1, -1]]]


def test_other_weights_are_models_of_their_own() -> None:
    start = {"w": torch.tensor([5.0])}
    changed = replayed_work(work(), [1, 0, 1], [Replay(start=start), Replay(), Replay()], 10)
    assert [float(changed.model_before(i)["w"]) for i in range(3)] == [5.0, 1.0, 2.0]


@pytest.mark.parametrize("start", [{}, {"w": torch.zeros(2)}, {"w": torch.zeros(1).double()}, {"v": torch.zeros(1)}])
def test_weights_of_another_form_are_refused(start: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ComponentError, match=r"round 1, client 1: 'w' is .*, should be torch.float32 of shape \(1,\)"):
        replayed_work(work(), [1], [Replay(start=start)], 10)


def test_rows_left_out_stay_so_among_other_banks() -> None:
    changed = replayed_work(work(), [0], [Replay(without=(5,))], 10)
    joined = join_work([work(), changed], [100, 200])
    assert joined.batches[2].tolist() == [[204, LEFT_OUT], [206, -1]]
