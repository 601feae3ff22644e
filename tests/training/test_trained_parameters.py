"""Models of which a part is frozen: what is trained, sent, stored and given noise is the trained part alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import fedmem
from fedmem.cli.main import app
from fedmem.contracts.federation import Federation, digest
from fedmem.contracts.model import frozen_tensors, trained_parameters
from fedmem.execution import run as running
from fedmem.execution.run import run
from fedmem.federation.build import build, check
from fedmem.scenario.scenario import Scenario
from fedmem.training.derivatives import ExampleGradients
from fedmem.training.per_example import Noise
from tests.tiny import tiny


class Net(nn.Module):
    """A frozen layer, a constant buffer, and a head that is trained."""

    frequency: torch.Tensor

    def __init__(self, size: int, classes: int, frozen: bool = True) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(size, 8), nn.Linear(8, classes)
        self.register_buffer("frequency", torch.linspace(0.5, 1.5, 8))
        self.body.requires_grad_(not frozen)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.tanh(self.body(x.flatten(1))) * self.frequency)
        return out


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """`Net`, whose clients can be stacked."""

    stackable: ClassVar[bool] = True
    frozen: bool = True

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        return Net(int(np.prod(input_shape)), num_classes, self.frozen)


@dataclass(frozen=True, kw_only=True)
class Counting:
    """A network whose buffer counts how often it is called."""

    stackable: ClassVar[bool] = False

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        class Counter(Net):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.frequency.add_(1)
                return super().forward(x)

        return Counter(int(np.prod(input_shape)), num_classes)


HEAD = ["head.weight", "head.bias"]


def adapter(kind: str = "Adapter", **changes: Any) -> Scenario:
    model = {"kind": f"tests.training.test_trained_parameters:{kind}", **changes.pop("model", {})}
    return tiny(**{"model": model, **changes})


def noise_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the noise of clients that is drawn from now on."""
    sizes: list[int] = []
    original = Noise.of

    def of(self: Noise, run: int, round_number: int, client: int, size: int) -> Iterator[torch.Tensor]:
        sizes.append(size)
        return original(self, run, round_number, client, size)

    monkeypatch.setattr(Noise, "of", of)
    return sizes


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    save: Any = {"models": {"rounds": [4]}}
    estimators: Any = [{"kind": "memorisation"}]
    signals: Any = [{"kind": "grad_norm"}]
    probes: Any = [{"kind": "utility"}]
    return {
        executor: run(
            adapter(save=save, estimators=estimators, signals=signals, probes=probes, speed={"executor": executor}),
            out=tmp_path_factory.mktemp(executor),
        )
        for executor in ("stacked", "one_by_one")
    }


def test_only_the_trained_part_is_initial_and_the_rest_is_frozen() -> None:
    federation = build(adapter())
    assert list(federation.initial) == HEAD
    assert list(federation.frozen) == ["body.weight", "body.bias", "frequency"]
    assert list(build(adapter(model={"frozen": False})).initial) == ["body.weight", "body.bias", *HEAD]


def test_saved_models_have_the_trained_part_and_the_base_stays(finished: dict[str, Path]) -> None:
    read = fedmem.read(finished["stacked"])
    models = list(read.models(round_number=4))
    assert models
    assert all(list(model.params) == HEAD for model in models)
    assert any(not np.array_equal(models[0].params[HEAD[0]], model.params[HEAD[0]]) for model in models)


@pytest.mark.parametrize("executor", ["stacked", "one_by_one"])
def test_the_base_is_bit_equal_after_training(executor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Federation] = []
    original: Any = vars(running)["build_federation"]

    def building(*arguments: Any, **others: Any) -> Federation:
        seen.append(original(*arguments, **others))
        return seen[-1]

    monkeypatch.setattr(running, "build_federation", building)
    scenario = adapter(rounds=2, speed={"executor": executor, "workers": 1})
    before = {name: value.clone() for name, value in build(scenario).frozen.items()}
    run(scenario, out=tmp_path)
    assert seen
    for name, value in seen[-1].frozen.items():
        assert torch.equal(value, before[name])
        assert value.data_ptr() == frozen_tensors(seen[-1].model)[name].data_ptr(), "the base lives once"


def test_stacked_equals_one_by_one_with_a_frozen_base(finished: dict[str, Path]) -> None:
    one, other = (fedmem.read(folder).measurements for folder in finished.values())
    assert one["metric"].tolist() == other["metric"].tolist()
    np.testing.assert_allclose(one["value"].to_numpy(), other["value"].to_numpy(), rtol=1e-4, atol=1e-5)


def test_nothing_frozen_equals_full_training(tmp_path: Path) -> None:
    settings: list[tuple[dict[str, Any], Path]] = [({}, tmp_path / "a"), ({"freeze": []}, tmp_path / "b")]
    whole, unfrozen = (
        run(tiny(rounds=2, model={"kind": "mlp", "hidden": [8]}, save={"models": {"rounds": [2]}}, **more), out=place)
        for more, place in settings
    )
    for one, other in zip(fedmem.read(whole).models(), fedmem.read(unfrozen).models(), strict=True):
        assert all(np.array_equal(one.params[name], other.params[name]) for name in one.params)


def test_freezing_by_the_scenario_equals_a_frozen_module(tmp_path: Path) -> None:
    save: Any = {"models": {"rounds": [2]}}
    by_model = run(adapter(rounds=2, save=save), out=tmp_path / "model")
    by_name = run(adapter(rounds=2, save=save, model={"frozen": False}, freeze=["body.*"]), out=tmp_path / "name")
    models = list(zip(fedmem.read(by_model).models(), fedmem.read(by_name).models(), strict=True))
    assert models
    for one, other in models:
        assert list(one.params) == list(other.params) == HEAD
        assert all(np.array_equal(one.params[name], other.params[name]) for name in HEAD)


@pytest.mark.parametrize("executor", ["stacked", "one_by_one"])
def test_noise_has_as_many_numbers_as_are_trained(
    executor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = noise_sizes(monkeypatch)
    client = {"kind": "dp_sgd", "lr": 0.2, "clip": 1.0, "noise_multiplier": 1.0, "batch_size": 8, "epochs": 1}
    scenario = adapter(
        client=client,
        rounds=1,
        observe={"every": 1},
        speed={"executor": executor, "workers": 1},
        privacy={"delta": 1e-3},
    )
    run(scenario, out=tmp_path)
    trained = sum(value.numel() for value in build(scenario).initial.values())
    assert set(sizes) == {trained}
    assert trained == sum(value.numel() for value in Net(1, 4).head.parameters())


def test_gradients_of_examples_are_those_of_the_trained_part() -> None:
    federation = build(adapter())
    network = federation.model.double()
    inputs, targets = federation.audit.examples.inputs[:3], federation.audit.examples.targets[:3]
    squares = ExampleGradients(network, inputs).squares([federation.initial], inputs, targets)
    assert list(squares) == HEAD
    for row in range(3):
        logits = network(torch.from_numpy(inputs[row : row + 1]).double())
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(targets[row : row + 1]))
        gradients = torch.autograd.grad(loss, list(trained_parameters(network).values()))
        for name, gradient in zip(HEAD, gradients, strict=True):
            assert squares[name][0, row] == pytest.approx(float(gradient.square().sum()), rel=1e-9)


def test_the_digest_of_a_federation_follows_the_frozen_base() -> None:
    federation, other = build(adapter()), build(adapter())
    assert digest(federation) == digest(other)
    with torch.no_grad():
        other.frozen["body.weight"][0, 0] += 1
    assert digest(federation) != digest(other)


def test_an_update_of_the_trained_part_can_be_attacked(tmp_path: Path) -> None:
    attack = {"kind": "inverting_gradients", "steps": 3}
    folder = run(
        adapter(rounds=1, observe={"every": 1}, probes=[{"kind": "leakage", "attack": attack, "rounds": [1]}]),
        out=tmp_path,
    )
    found = fedmem.read(folder).measurements
    distances = found.loc[found["metric"] == "distance", "value"]
    assert len(distances)
    assert np.isfinite(distances).all()


@pytest.mark.parametrize(
    ("changes", "path", "text"),
    [
        ({"freeze": ["nobody.*"]}, "freeze[0]", "matches no parameter of the network, which has body.weight"),
        ({"freeze": ["*"]}, "freeze", "matches all parameters"),
        ({"kind": "Counting"}, "model", "changes its buffer 'frequency' in a forward pass"),
    ],
)
def test_what_cannot_be_frozen_is_refused(changes: dict[str, Any], path: str, text: str) -> None:
    (problem,) = check(adapter(**changes))
    assert problem.path == path
    assert text in problem.message


def test_check_prints_how_many_parameters_are_frozen(tmp_path: Path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(
        "name: frozen\nruns: 2\nrounds: 2\nclients: 4\ndataset: {kind: synthetic}\nmodel: {kind: mlp, hidden: [8]}\n"
        "freeze: [hidden1.*]\ninjections: [{kind: typical, per_client: 2}]\n"
    )
    answer = CliRunner().invoke(app, ["check", str(file)])
    assert answer.exit_code == 0, answer.output
    assert "frozen ones" in " ".join(answer.output.split())
