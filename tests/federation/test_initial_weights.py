"""Tests of `fedmem/federation/initial_weights.py`."""

from __future__ import annotations

from itertools import combinations

import torch

from fedmem.federation import build
from tests.federation.build_helpers import changed, scenario


def test_initial_parameters_are_those_of_the_model_and_detached() -> None:
    built = build.build(scenario())
    for name, parameter in built.model.named_parameters():
        assert torch.equal(parameter, built.initial[name])
        assert parameter.data_ptr() != built.initial[name].data_ptr()
        assert not built.initial[name].requires_grad


def test_own_initial_weights_differ_between_runs() -> None:
    shared, own = build.build(scenario()), build.build(scenario(initial_weights="per_run"))
    assert changed(shared, own) == set()
    assert shared.initials == ()
    assert all(shared.initial_of(run) is shared.initial for run in range(4))
    weights = [own.initial_of(run)["hidden1.weight"] for run in range(4)]
    assert all(not torch.equal(one, other) for one, other in combinations([*weights, own.initial["hidden1.weight"]], 2))
    # Those of a run do not depend on how many runs there are.
    fewer = build.build(scenario(initial_weights="per_run", runs=2))
    assert all(torch.equal(fewer.initial_of(run)["hidden1.weight"], weights[run]) for run in range(2))
