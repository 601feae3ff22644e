"""What every defence promises, for every file in the folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedmem.contracts.arrays import Params
from fedmem.contracts.evidence import TrainedBank
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.scenario import catalogue
from tests.contracts.defence_helpers import update
from tests.tiny import tiny

# With few rows for a client, rounding decides in some round which parameter `prune` keeps.
DATA = {"kind": "synthetic"}

every_defence = pytest.mark.parametrize("kind", catalogue.kinds("defence"))


def drawn(defence: Any, like: Params, seed: int = 1) -> Params:
    rng = np.random.default_rng(seed)
    ways: dict[str, Callable[..., NDArray[np.float32]]] = {"normal": rng.standard_normal, "uniform": rng.random}
    draw = ways.get(defence.draws)
    return {name: torch.from_numpy(draw(tuple(v.shape), np.float32)) for name, v in like.items()} if draw else {}


@every_defence
def test_defence_declares_draws_and_keeps_names_shapes_dtypes(kind: str) -> None:
    defence, given = catalogue.load("defence", kind)(), update()
    assert defence.draws in ("none", "normal", "uniform")
    found = defence.apply(given, drawn(defence, given))
    assert list(found) == list(given)
    for name, value in given.items():
        assert found[name].shape == value.shape
        assert found[name].dtype == value.dtype
        assert torch.equal(value, update()[name]), "what was given is left alone"


@every_defence
def test_a_stack_is_its_clients_one_by_one(kind: str) -> None:
    defence = catalogue.load("defence", kind)()
    single = [update(seed) for seed in range(4)]
    draws = [drawn(defence, one, seed) for seed, one in enumerate(single)]
    stacked = torch.vmap(defence.apply)(
        {name: torch.stack([one[name] for one in single]) for name in single[0]},
        {name: torch.stack([one[name] for one in draws]) for name in draws[0]},
    )
    for i, (one, draw) in enumerate(zip(single, draws, strict=True)):
        for name, value in defence.apply(one, draw).items():
            torch.testing.assert_close(stacked[name][i], value, rtol=1e-6, atol=1e-7)


@every_defence
def test_zero_update_stays_finite_and_zero_except_for_noise(kind: str) -> None:
    defence = catalogue.load("defence", kind)()
    nothing = {name: torch.zeros_like(value) for name, value in update().items()}
    for value in defence.apply(nothing, drawn(defence, nothing)).values():
        assert torch.isfinite(value).all()
        assert (kind == "noise") == bool(value.any())


@every_defence
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_non_finite_values_stay_non_finite(kind: str, wrong: float) -> None:
    """A client whose model is not finite has failed, whatever is done to it on its way out."""
    defence, given = catalogue.load("defence", kind)(), update()
    given["w"][1, 2] = wrong
    assert not torch.isfinite(defence.apply(given, drawn(defence, given))["w"]).all()


def defended(kind: str, **changes: Any) -> TrainedBank:
    scenario = tiny(defences=[{"kind": kind}], dataset=DATA, **changes)
    return simulate(scenario, build(scenario))


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)


@every_defence
def test_engines_and_executors_agree(kind: str) -> None:
    """One by one to the last bit, with and without messages; stacked but for rounding, in stacks of any size."""
    rule = defended(kind, speed={"executor": "one_by_one", "server": "rule", "workers": 1})
    messages = defended(kind, speed={"executor": "one_by_one", "server": "messages", "workers": 1})
    assert same(rule.params, messages.params)
    plain = simulate(tiny(dataset=DATA), build(tiny(dataset=DATA)))
    if kind != "clip":
        assert not same(rule.params, plain.params)
    stacked = defended(kind, speed={"executor": "stacked"})
    for one, other in zip(rule.params, stacked.params, strict=True):
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5)
    scenario = tiny(defences=[{"kind": kind}], dataset=DATA, speed={"executor": "stacked"})
    alone = simulate(scenario, build(scenario), runs=[2])
    assert same(alone.params, stacked.params[2:3])
