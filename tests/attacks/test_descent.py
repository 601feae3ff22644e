"""Tests of `fedmem/attacks/_descent.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.attacks._matching import Matching
from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.modalities.numbers import psnr, squared_errors
from fedmem.seeding import stream
from tests.attacks.inverting_gradients_helpers import QUICK, streams
from tests.lab import digits, network, parameters, target_of


def test_the_step_decays_and_images_stay_in_the_box() -> None:
    model, rows = network(), digits().take(np.arange(4))
    (found,) = QUICK.reconstruct([target_of(model, parameters(model), rows)], [stream(0, "x")])
    assert found.inputs.shape == (4, 1, 8, 8)
    assert found.inputs.dtype == np.float32
    assert found.inputs.min() >= 0
    assert found.inputs.max() <= 1


def test_stalled_problem_leaves_without_changing_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """With patience each problem is judged by its own objective: alone and beside others it gets the same image."""
    model, data = network(nn.Sigmoid), digits()
    targets = [target_of(model, parameters(model), data.take(np.arange(i, i + 1))) for i in range(4)]
    sizes: list[int] = []
    cosine = Matching.cosine

    def counted(self: Matching, images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return cosine(self, images)

    monkeypatch.setattr(Matching, "cosine", counted)
    attack = InvertingGradients(steps=400, patience=15)
    together = attack.reconstruct(targets, streams(4))
    assert sizes[0] == 4
    assert 0 < sizes[-2] < 4, "somebody left before the end"
    assert sizes == [*sorted(sizes[:-1], reverse=True), 4]
    assert len(sizes) <= 401
    for i, one in enumerate(together):
        (alone,) = attack.reconstruct([targets[i]], streams(4)[i : i + 1])
        assert np.abs(alone.inputs - one.inputs).max() < 0.02
    patient = InvertingGradients(steps=400).reconstruct(targets, streams(4))
    truth = data.inputs[:4]
    quality = [
        np.median([squared_errors(o.inputs, t[None])[0, 0] for o, t in zip(f, truth, strict=True)])
        for f in (together, patient)
    ]
    assert psnr(np.float64(quality[0])) > psnr(np.float64(quality[1])) - 3
