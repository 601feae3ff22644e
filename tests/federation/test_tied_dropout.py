"""Tests of `fedmem/federation/tied_dropout.py`: the units of a network, and scenarios that are trained with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedmem
from fedmem.contracts.arrays import Params
from fedmem.errors import ComponentError
from fedmem.execution.run import run
from fedmem.federation.build import build
from fedmem.federation.tied_dropout import tied_units_of
from fedmem.scenario.unfolding import last_phase
from fedmem.training.tied_units import example_ids
from tests.tiny import tiny

TIED: dict[str, Any] = {"layers": ["activation1"]}
SMALL: dict[str, Any] = {
    "runs": 2,
    "rounds": 2,
    "model": {"kind": "mlp", "hidden": [20]},
    "save": {"models": {"rounds": [-1], "levels": ["local", "global"]}},
}


def models(folder: Path, **changes: Any) -> dict[tuple[int, str, int], Params]:
    """The models of the last round by run, level and client."""
    read = fedmem.read(run(tiny(**{**SMALL, **changes}), out=folder))
    return {(one.run, one.level, one.client): dict(one.params) for one in read.models()}


def equal(one: dict[Any, Params], other: dict[Any, Params], tolerance: float = 0.0) -> bool:
    return all(
        torch.allclose(value, other[key][name], rtol=0, atol=tolerance)
        for key, model in one.items()
        for name, value in model.items()
    )


def test_numbers_of_units_are_rounded_shares() -> None:
    federation = build(tiny(**{**SMALL, "tied_dropout": TIED}))
    assert federation.mode.tied is not None
    (layer,) = federation.mode.tied.layers
    assert (layer.units, layer.fixed, layer.tied) == (20, 4, 2)
    assert federation.mode.tied.seed == 3
    assert not federation.mode.differs
    assert federation.initial_notes == (
        "4 of 20 units of activation1 are evaluated; each example trains these and 2 of the others",
    )


def test_channels_are_units() -> None:
    cnn = {"kind": "small_cnn", "channels": [8, 12], "groups": 4}
    layers = {"layers": ["pool1", "activation2"]}
    federation = build(tiny(**{**SMALL, "model": cnn, "tied_dropout": layers}))
    assert federation.mode.tied is not None
    assert [(layer.units, layer.fixed, layer.tied) for layer in federation.mode.tied.layers] == [(8, 2, 1), (12, 2, 1)]


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"layers": ["activation"]}, "layers[0]", "did you mean 'activation1'?"),
        ({"layers": ["activation"]}, "layers[0]", "activation1 (20 units)"),
        ({"layers": ["output"]}, "layers[0]", "gives the logits, and a class must not be dropped"),
        ({"layers": [""]}, "layers[0]", "no module ''"),
        ({"layers": ["activation1"], "fixed": 0.02}, "fixed", "raise fixed to 0.05 or more"),
        ({"layers": ["activation1"], "tied": 0.02}, "tied", "raise tied to 0.062 or more"),
    ],
)
def test_errors_name_the_units_that_there_are(changes: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(ComponentError) as caught:
        build(tiny(**{**SMALL, "tied_dropout": changes}))
    assert caught.value.path == f"tied_dropout.{path}"
    assert message in caught.value.message


def test_tokens_are_refused() -> None:
    scenario = tiny(**{**SMALL, "tied_dropout": TIED})
    with pytest.raises(ComponentError, match="the rows of texts have units at every place"):
        tied_units_of(scenario, torch.nn.Embedding(3, 2), torch.zeros(2, 4, dtype=torch.int64))


def test_with_all_units_fixed_nothing_is_dropped() -> None:
    federation = build(tiny(**{**SMALL, "tied_dropout": {**TIED, "fixed": 1.0}}))
    assert federation.mode.tied is None
    assert not any(part._forward_hooks for part in federation.model.modules())
    assert federation.initial_notes == ()


@pytest.mark.slow
def test_with_all_units_fixed_it_is_the_plain_model(tmp_path: Path) -> None:
    plain, fixed = models(tmp_path), models(tmp_path, tied_dropout={**TIED, "fixed": 1.0})
    assert equal(plain, fixed)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["example", "client"])
def test_every_way_to_train_gives_the_same_models(tmp_path: Path, unit: str) -> None:
    tied = {**TIED, "unit": unit}
    stacked = models(tmp_path, tied_dropout=tied, speed={"executor": "stacked"})
    for speed in ({"executor": "one_by_one", "workers": 1}, {"executor": "one_by_one", "workers": 2}):
        assert equal(stacked, models(tmp_path / str(speed["workers"]), tied_dropout=tied, speed=speed), 1e-6)
    assert not equal(stacked, models(tmp_path), 1e-2)


def test_phases_keep_the_units_of_rows() -> None:
    """The same ids of rows: those of generated rows are numbered in an order that phases share."""
    scenario = {**SMALL, "tied_dropout": TIED, "then": [{"rounds": 1, "forget": {"kinds": ["mislabelled"]}}]}
    phase = last_phase(tiny(**scenario))
    assert phase.previous is not None
    later, first = build(phase), build(phase.previous)
    assert later.mode.tied == first.mode.tied
    assert np.array_equal(example_ids(later.store), example_ids(first.store))


def test_an_example_and_its_replacement_are_two_examples() -> None:
    federation = build(tiny(**{**SMALL, "tied_dropout": TIED}))
    ids = example_ids(federation.store)
    assert len(np.unique(ids)) == len(ids)
    out = federation.replacement >= 0
    assert out.any()
    assert (ids[federation.replacement[out]] != ids[np.broadcast_to(federation.trained_rows, out.shape)[out]]).all()
