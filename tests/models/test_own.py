"""Networks of a user's own in a scenario: fresh, seeded, checked before training."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmem.errors import FedmemError
from fedmem.federation.build import build, load
from fedmem.federation.initial_weights import initialise
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.scenario import Scenario

NETS = """
import random
import numpy as np, torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, fault="", width: int = 4):
        super().__init__()
        self.fault = fault
        layers = [nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, num_classes)]
        if fault == "batch norm": layers.insert(2, nn.BatchNorm1d(width))
        if fault == "both": layers[2:2] = [nn.BatchNorm1d(width), nn.Dropout(0.1)]
        if fault == "dropout": layers.insert(2, nn.Dropout(0.1))
        self.body = nn.Sequential(*layers)
        if fault == "constant": self.register_buffer("mask", torch.ones(1))
        if fault == "double": self.double()
        if fault == "meta": self.to("meta")
    def forward(self, x):
        y = self.body(x)
        return {"tuple": (y, y), "dict": {"y": y}, "few": y[:, 1:]}.get(self.fault, y)

class Draws(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.out = nn.Linear(5, num_classes)
        with torch.no_grad():
            self.out.bias[0] = random.random()
            self.out.bias[1] = np.random.rand()
    def forward(self, x):
        return self.out(x)

class Twice(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.again = self.first
        self.out = nn.Linear(5, num_classes)
    def forward(self, x):
        return self.out(torch.relu(self.again(torch.relu(self.first(x)))))

class InPlace(Draws):
    stackable = True
    def forward(self, x):
        z = torch.zeros(len(x), self.out.out_features)
        z[:, :2] = self.out(x)[:, :2]
        return z + 0 * self.out(x)

class Branch(Draws):
    stackable = True
    def forward(self, x):
        y = self.out(x)
        return y * 2 if y.sum() > 0 else y * 2.0

def nothing(): ...
"""


@pytest.fixture(autouse=True)
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module `own_nets` in the search path."""
    (tmp_path / "own_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("own_nets", None)


def scenario(model: str, more: str = "") -> Scenario:
    """Few rows of five numbers, with this model."""
    data = "{kind: synthetic, rows: 300, test: 20, shape: [5], classes: 3}"
    return parse_scenario(f"{{rounds: 1, runs: 2, clients: 2, dataset: {data}, model: {{{model}}}{more}}}")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("batch norm", "1 layer with running statistics, BatchNorm1d at 'body.2'"),
        ("double", "is float64, should be float32"),
        ("meta", "is on device meta, should be on cpu"),
        ("tuple", "for a batch of shape (2, 5) it returned a tuple, should be floating logits of shape (2, 3)"),
        ("dict", "it returned a dict"),
        ("few", "float32 of shape (2, 2), should be floating logits of shape (2, 3); one number for each class"),
    ],
)
def test_a_faulty_network_is_refused_with_the_remedy(fault: str, says: str) -> None:
    with pytest.raises(FedmemError) as error:
        build(scenario(f"kind: 'own_nets:Net', fault: {fault}"))
    assert says in str(error.value)


def test_batch_norm_without_a_policy_is_told_the_four_choices() -> None:
    with pytest.raises(FedmemError) as error:
        build(scenario("kind: 'own_nets:Net', fault: both"))
    for kind in ("local", "averaged", "frozen", "to_group"):
        assert f"norm: {{kind: {kind}}}" in str(error.value)


@pytest.mark.parametrize("fault", ["constant", "dropout"])
def test_constant_buffers_and_dropout_are_accepted(fault: str) -> None:
    assert next(iter(build(scenario(f"kind: 'own_nets:Net', fault: {fault}")).initial)) == "body.1.weight"


def test_a_network_that_fails_before_any_run_exits_with_2() -> None:
    with pytest.raises(FedmemError) as error:
        build(scenario("kind: 'own_nets:Net', fault: few"))
    assert error.value.exit_code == 2


def test_what_is_no_module_is_refused_with_file_and_line() -> None:
    with pytest.raises(FedmemError, match=r"it returned nothing, should be a torch\.nn\.Module \(.*own_nets\.py:\d+"):
        build(scenario("kind: 'own_nets:nothing'"))


@pytest.mark.parametrize(("net", "cause"), [("InPlace", "inplace arithmetic"), ("Branch", "control flow")])
def test_a_network_that_cannot_be_stacked_says_what_to_write(net: str, cause: str) -> None:
    with pytest.raises(FedmemError) as error:
        build(scenario(f"kind: 'own_nets:{net}'"))
    assert cause in str(error.value)
    assert "speed.executor: one_by_one" in str(error.value)
    assert build(scenario(f"kind: 'own_nets:{net}'", ", speed: {executor: one_by_one}")).initial


def test_weights_follow_the_seed_alone_and_draws_are_undone() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
    first = build(scenario("kind: 'own_nets:Draws'")).initial
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    torch.manual_seed(5)
    again = build(scenario("kind: 'own_nets:Draws'")).initial
    assert all(torch.equal(first[name], again[name]) for name in first)
    own = scenario("kind: 'own_nets:Draws'", ", initial_weights: per_run")
    (one, other) = build(own).initials
    assert not (one["out.bias"][:2] == other["out.bias"][:2]).any()


def test_checks_leave_the_weights_of_a_shared_layer_alone() -> None:
    drawn = scenario("kind: 'own_nets:Twice'")
    module, initial = initialise(drawn, load(drawn))
    # a run of its own is not tried on rows, so that its weights are as they were drawn
    torch.manual_seed(0)
    assert float(initial["first.weight"].abs().max()) <= 5**-0.5
    assert isinstance(module.get_parameter("first.weight"), torch.nn.Parameter)
    assert list(initial) == ["first.weight", "first.bias", "out.weight", "out.bias"]
