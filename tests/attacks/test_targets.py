"""What cannot be attacked is refused before anything is optimised, in words that say what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from fedmem.apps.attack import Known, attack
from fedmem.attacks._targets import require_direction, validate_targets
from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.cli.main import app
from fedmem.contracts.attack import GradientTarget
from fedmem.errors import FedmemError, TargetError
from tests.lab import digits, network, parameters, target_of


def target(model: nn.Module | None = None) -> GradientTarget:
    model = model or network()
    return target_of(model, parameters(model), digits().take(np.arange(2)))


def without(name: str) -> Callable[[GradientTarget], GradientTarget]:
    def changed(one: GradientTarget) -> GradientTarget:
        return replace(one, gradient={key: value for key, value in one.gradient.items() if key != name})

    return changed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (without("1.bias"), r"gradient: '1.bias' is amiss, only the model has one; give the architecture"),
        (
            lambda one: replace(one, update={**one.gradient, "2.weight": torch.zeros(1)}),
            r"update: '2.weight'.*has none",
        ),
        (
            lambda one: replace(one, params={**one.params, "1.bias": torch.zeros(3)}),
            r"params: '1.bias' has shape \(3,\), the model's has \(64,\)",
        ),
        (lambda one: replace(one, num_images=0), "at least one example"),
        (lambda one: replace(one, labels=np.array([1])), "1 labels for 2 images; give as many"),
        (lambda one: replace(one, input_shape=(7,)), r"cannot be called on inputs of shape \(7,\).*without the axis"),
        (lambda one: replace(one, num_classes=9), r"outputs of shape \(10,\) for 9 classes"),
    ],
)
def test_target_that_does_not_fit_names_its_part(
    changed: Callable[[GradientTarget], GradientTarget], said: str
) -> None:
    assert validate_targets([target()])
    for attempt in (
        validate_targets,
        lambda given: InvertingGradients(steps=1).reconstruct(given, [np.random.default_rng(0)]),
    ):
        with pytest.raises(TargetError, match=said):
            attempt([changed(target())])


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(64)])
def test_training_mode_layers_with_random_gradients_are_refused(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Flatten(), layer, nn.Linear(64, 10))
    with pytest.raises(TargetError, match=rf"{type(layer).__name__} at '1'.*--mode eval"):
        validate_targets([target(model)])
    model.eval()
    assert validate_targets([target(model)])
    batch_statistics = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, track_running_stats=False), nn.Linear(64, 10))
    with pytest.raises(TargetError, match="mean and variance of each batch"):
        validate_targets([target(batch_statistics.eval())])
    assert validate_targets([target(nn.Sequential(nn.Flatten(), nn.Dropout(0.0), nn.Linear(64, 10)))])


def test_every_target_is_looked_at() -> None:
    good, other = target(), target(network(seed=1))
    with pytest.raises(TargetError):
        validate_targets([good, replace(other, num_classes=9)])


@pytest.mark.parametrize(("value", "said"), [(0.0, "zero everywhere"), (np.nan, "not finite"), (np.inf, "not finite")])
def test_single_update_without_direction_is_refused(value: float, said: str) -> None:
    one = target()
    blank = replace(one, gradient={name: torch.full_like(part, value) for name, part in one.gradient.items()})
    assert require_direction(one) is one
    with pytest.raises(TargetError, match=said):
        require_direction(blank)
    assert validate_targets([blank]), "in a federation it is a measurement like any other"
    partly = replace(one, gradient={**one.gradient, "1.bias": torch.full((64,), value)})
    if value == 0:
        assert require_direction(partly) is partly
    else:
        with pytest.raises(TargetError, match=r"'1\.bias'"):
            require_direction(partly)
    model, before = one.model, one.params
    after = {name: part + value for name, part in before.items()}
    known = Known(input_shape=(1, 8, 8), num_classes=10, num_images=2, lr=0.1)
    with pytest.raises(TargetError, match=said):
        attack(before, after, model=model, attack=InvertingGradients(steps=1), known=known)


def test_the_command_ends_with_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(parameters(network()), "before.pt")
    known = ("--shape", "1,8,8", "--classes", "10", "--images", "1", "--lr", "0.1")
    model = ("--model", "mlp", "--set", "model.hidden=[8]")
    from fedmem.models.mlp import MLP

    built = MLP(hidden=(8,)).build((1, 8, 8), 10)
    torch.save(built.state_dict(), "before.pt")
    done = CliRunner().invoke(app, ["attack", "before.pt", "before.pt", *model, *known, "--out", "found"])
    assert done.exit_code == 2
    assert "zero everywhere" in done.stderr
    assert not Path("found").exists()
    assert issubclass(TargetError, FedmemError)
