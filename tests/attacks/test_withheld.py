"""Layers that stay with the client: attacks match what was sent, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedmem.attacks._labels import guess_labels
from fedmem.attacks._problems import labels_of
from fedmem.attacks._targets import validate_targets
from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.attacks.linear_layer import LinearLayer
from fedmem.attacks.nearest_mean import NearestMean
from fedmem.contracts.attack import GradientTarget
from fedmem.errors import ComponentError, TargetError
from fedmem.modalities.numbers import squared_errors
from tests.lab import digits, network, parameters, target_of

HEAD = ("3.weight", "3.bias")


def whole(row: int = 0) -> GradientTarget:
    model = network(torch.nn.Sigmoid)
    rows = digits().take(np.arange(row, row + 1))
    return replace(target_of(model, parameters(model), rows), labels=rows.targets)


def without_head(target: GradientTarget) -> GradientTarget:
    sent = {name: value for name, value in target.gradient.items() if name not in HEAD}
    return replace(target, gradient=sent, personal=HEAD)


def zeros_for_head(target: GradientTarget) -> GradientTarget:
    """What the difference of two messages looks like, if nobody says that the head was not in them."""
    given = {n: torch.zeros_like(v) if n in HEAD else v for n, v in target.gradient.items()}
    return replace(target, gradient=given)


@pytest.mark.parametrize("network_can_be_read", [True, False])
def test_image_is_reconstructed_without_head_but_not_zero_head(
    network_can_be_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not network_can_be_read:
        monkeypatch.setattr("fedmem.attacks._matching._shared_model", lambda *_: None)
    targets = [whole(), without_head(whole()), zeros_for_head(whole())]
    attack = InvertingGradients(steps=150, labels="known", tv=0.0)
    full, body, zeros = attack.reconstruct(targets, [np.random.default_rng(0) for _ in targets])
    truth = digits().take(np.arange(1)).inputs
    error = {name: squared_errors(r.inputs, truth)[0, 0] for name, r in zip("fbz", (full, body, zeros), strict=True)}
    assert body.distance < 1e-2
    assert zeros.distance > 0.1
    assert error["b"] < 0.5 * error["z"]
    assert full.distance < 1e-2


def test_labels_are_guessed_where_the_bias_was_not_sent() -> None:
    target = replace(without_head(whole(3)), labels=None, num_images=4)
    assert labels_of(target).tolist() == guess_labels(4, 10).tolist()
    told = replace(whole(3), labels=None)
    assert labels_of(told).tolist() == digits().targets[3:4].tolist()


def test_undeclared_missing_names_are_refused() -> None:
    target = without_head(whole())
    validate_targets([target])
    with pytest.raises(TargetError, match=r"gradient: '3\.bias' is amiss, only the model has one"):
        validate_targets([replace(target, personal=("3.weight",))])
    with pytest.raises(TargetError, match=r"gradient: '3\.bias' is amiss, the model has none"):
        validate_targets([replace(whole(), personal=("3.bias",))])


def test_attack_that_needs_a_missing_layer_raises() -> None:
    first = {n: v for n, v in whole().gradient.items() if not n.startswith("1.")}
    target = replace(whole(), gradient=first, personal=("1.weight", "1.bias"))
    with pytest.raises(ComponentError, match="stays with each client"):
        LinearLayer().reconstruct([target], [np.random.default_rng(0)])
    (found,) = NearestMean().reconstruct(
        [replace(without_head(whole()), population=digits().take(np.arange(200, 400)))], [np.random.default_rng(0)]
    )
    assert np.isfinite(found.distance)
