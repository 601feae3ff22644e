"""DLG, iDLG and the L-BFGS below them: closed forms, independence of neighbours, and what must fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.attacks.dlg import DLG
from fedmem.attacks.idlg import IDLG
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import Reconstruction
from fedmem.contracts.data import Examples
from fedmem.modalities.numbers import psnr, squared_errors
from fedmem.modalities.pairing import assign
from tests.attacks.newton_helpers import streams, targets
from tests.lab import network

BOTH = [DLG(steps=150), IDLG(steps=150)]


def quality(found: Sequence[Reconstruction], rows: Sequence[Examples]) -> FloatArray:
    every = []
    for one, truth in zip(found, rows, strict=True):
        errors = squared_errors(one.inputs, truth.inputs)
        every.append(psnr(errors[assign(errors), np.arange(len(truth))]))
    return np.concatenate(every)


# L-BFGS


# The attacks


@pytest.mark.parametrize("attack", BOTH)
def test_a_linear_layer_with_bias_gives_its_example_away(attack: DLG | IDLG) -> None:
    """Oracle: x = (dl/dW_j) / (dl/db_j) exactly."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    (target,), (row,) = targets(model, [1])
    unit = int(target.gradient["1.bias"].abs().argmax())
    exact = (target.gradient["1.weight"].double()[unit] / target.gradient["1.bias"].double()[unit]).numpy()
    (found,) = attack.reconstruct([target], streams(1))
    assert np.abs(found.inputs.reshape(-1) - exact).max() < 1e-4
    assert found.labels.tolist() == row.targets.tolist()
    assert 0 <= found.distance < 1e-9


@pytest.mark.parametrize("attack", BOTH)
def test_smooth_networks_give_single_images_and_labels_away(attack: DLG | IDLG) -> None:
    given, rows = targets(network(nn.Sigmoid), [1] * 6)
    found = attack.reconstruct(given, streams(6))
    assert np.median(quality(found, rows)) > 40
    assert [one.labels[0] for one in found] == [row.targets[0] for row in rows]


@pytest.mark.parametrize("attack", BOTH)
@pytest.mark.parametrize("factor", [-1.0, 2.0])
def test_sign_and_scale_count(attack: DLG | IDLG, factor: float) -> None:
    given, rows = targets(network(nn.Sigmoid), [1] * 4)
    wrong = [replace(one, gradient={n: factor * g for n, g in one.gradient.items()}) for one in given]
    found = attack.reconstruct(wrong, streams(4))
    assert np.median(quality(found, rows)) < 20
    assert all(one.distance > 1e-4 for one in found)


@pytest.mark.parametrize("attack", BOTH)
def test_batches_of_unlike_sizes_share_a_stack_and_come_sorted(attack: DLG | IDLG) -> None:
    given, rows = targets(network(nn.Sigmoid), [2, 1, 3])
    together = attack.reconstruct(given, streams(3))
    assert [len(one.inputs) for one in together] == [2, 1, 3]
    for i, one in enumerate(together):
        assert one.inputs.dtype == np.float32
        assert 0 <= one.inputs.min() <= one.inputs.max() <= 1
        assert one.labels.tolist() == sorted(one.labels.tolist())
        (alone,) = attack.reconstruct([given[i]], streams(3)[i : i + 1])
        assert alone.labels.tolist() == one.labels.tolist()
        if one.distance < 1e-8:
            assert np.abs(alone.inputs - one.inputs).max() < 1e-2
    assert quality(together[1:2], rows[1:2])[0] > 40


@pytest.mark.parametrize("attack", BOTH)
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_target_without_direction_is_nan_and_leaves_others_alone(attack: DLG | IDLG, value: float) -> None:
    given, rows = targets(network(nn.Sigmoid), [1, 1])
    blank = replace(given[0], gradient={n: torch.full_like(g, value) for n, g in given[0].gradient.items()})
    lost, beside = attack.reconstruct([blank, given[1]], streams(2))
    assert np.isnan(lost.distance)
    assert np.isfinite(lost.inputs).all()
    assert quality([beside], rows[1:])[0] > 40


@pytest.mark.parametrize("kind", [DLG, IDLG])
def test_restarts_are_chosen_by_their_distance(kind: type[DLG | IDLG]) -> None:
    given, _ = targets(network(nn.ReLU), [2])
    alone = [kind(steps=12, restarts=n).reconstruct(given, streams(1))[0].distance for n in (1, 4)]
    assert alone[1] <= alone[0]
