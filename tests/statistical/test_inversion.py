"""Gradient inversion on Fashion-MNIST: an untrained smooth network gives its image away; what makes it harder."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import t
from torch import nn

from fedmem.attacks.dlg import DLG
from fedmem.attacks.idlg import IDLG
from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.attack import GradientTarget, ReconstructionAttack
from fedmem.contracts.data import Examples
from fedmem.datasets.fashion_mnist import FashionMnist
from fedmem.errors import ComponentError
from fedmem.modalities.numbers import psnr, squared_errors
from fedmem.modalities.pairing import assign
from fedmem.models.lenet import LeNet
from fedmem.models.mlp import MLP
from fedmem.seeding import stream
from tests.lab import gradient_of, parameters, target_of

pytestmark = pytest.mark.statistical

IMAGES = 20


@cache
def clothes() -> Examples:
    try:
        return FashionMnist().load(np.random.default_rng(0)).train
    except ComponentError as error:
        pytest.skip(f"fedmem fetch fashion_mnist first: {error}")


def built(model: LeNet | MLP) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model.build((1, 28, 28), 10)


def targets(model: nn.Module, params: Params, size: int) -> tuple[list[GradientTarget], list[Examples]]:
    rows = [clothes().take(np.arange(size * i, size * (i + 1))) for i in range(IMAGES)]
    return [target_of(model, params, one) for one in rows], rows


def quality(attack: ReconstructionAttack, given: list[GradientTarget], rows: list[Examples]) -> FloatArray:
    """(IMAGES,) mean PSNR of the images of each target."""
    found = attack.reconstruct(given, [stream(0, "attack", client=i) for i in range(len(given))])
    means = []
    for one, truth in zip(found, rows, strict=True):
        errors = squared_errors(one.inputs, truth.inputs)
        means.append(float(psnr(errors[assign(errors), np.arange(len(truth))]).mean()))
    return np.array(means)


def grey(rows: list[Examples]) -> FloatArray:
    return np.array([psnr(squared_errors(np.full_like(one.inputs, 0.5), one.inputs))[0, 0] for one in rows])


def clearly_above(difference: FloatArray) -> bool:
    """Whether the 95 % interval of a mean of pairs lies above 0."""
    return bool(difference.mean() - t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / IMAGES**0.5 > 0)


@pytest.mark.parametrize("attack", [InvertingGradients(steps=200, tv=0.0), DLG(steps=60), IDLG(steps=60)])
def test_image_of_one_step_of_a_smooth_network_is_reconstructed(attack: ReconstructionAttack) -> None:
    model = built(LeNet())
    given, rows = targets(model, parameters(model), 1)
    own = quality(attack, given, rows)
    assert np.median(own) > 20
    assert (own > grey(rows)).sum() >= 18


def test_gradients_of_other_images_are_worth_no_more_than_grey() -> None:
    """The gradients of other images, and of the same images from other weights, are worth no more than grey."""
    model = built(LeNet())
    given, rows = targets(model, parameters(model), 1)
    attack = IDLG(steps=60)
    moved = quality(attack, given[1:] + given[:1], rows)
    assert np.median(moved) < 20
    assert (moved > grey(rows)).sum() < 18


def trained(model: nn.Module, steps: int) -> Params:
    params, data, rng = parameters(model), clothes(), np.random.default_rng(1)
    for _ in range(steps):
        rows = rng.choice(np.arange(400, len(data)), 50, replace=False)
        gradient = gradient_of(model, params, data.inputs[rows], data.targets[rows])
        params = {name: value - 0.1 * gradient[name] for name, value in params.items()}
    return params


def test_an_untrained_network_gives_away_more_than_a_trained_one() -> None:
    model = built(MLP(hidden=(64,)))
    attack = InvertingGradients(steps=150)
    pair = [quality(attack, *targets(model, params, 4)) for params in (parameters(model), trained(model, 400))]
    assert clearly_above(pair[0] - pair[1])
    assert not clearly_above(pair[1] - pair[0])


def test_one_image_is_given_away_more_than_eight() -> None:
    model = built(MLP(hidden=(64,)))
    attack = InvertingGradients(steps=150)
    pair = [quality(attack, *targets(model, parameters(model), size)) for size in (1, 8)]
    assert clearly_above(pair[0] - pair[1])
    assert not clearly_above(pair[1] - pair[0])
