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
from fedmem.training.defence_pipeline import DefencePipeline, Place
from tests.tiny import tiny

every_defence = pytest.mark.parametrize("kind", catalogue.kinds("defence"))


def update(seed: int = 0) -> Params:
    rng = np.random.default_rng(seed)
    return {
        "w": torch.from_numpy(rng.normal(size=(3, 4)).astype(np.float32)),
        "b": torch.from_numpy(rng.normal(size=5).astype(np.float32)),
    }


def drawn(defence: Any, like: Params, seed: int = 1) -> Params:
    rng = np.random.default_rng(seed)
    ways: dict[str, Callable[..., NDArray[np.float32]]] = {"normal": rng.standard_normal, "uniform": rng.random}
    draw = ways.get(defence.draws)
    return {name: torch.from_numpy(draw(tuple(v.shape), np.float32)) for name, v in like.items()} if draw else {}


@every_defence
def test_says_what_it_draws_and_keeps_names_shapes_and_types(kind: str) -> None:
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
def test_an_update_of_zero_stays_finite_and_is_zero_but_for_noise(kind: str) -> None:
    defence = catalogue.load("defence", kind)()
    nothing = {name: torch.zeros_like(value) for name, value in update().items()}
    for value in defence.apply(nothing, drawn(defence, nothing)).values():
        assert torch.isfinite(value).all()
        assert (kind == "noise") == bool(value.any())


@every_defence
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_is_not_hidden(kind: str, wrong: float) -> None:
    """A client whose model is not finite has failed, whatever is done to it on its way out."""
    defence, given = catalogue.load("defence", kind)(), update()
    given["w"][1, 2] = wrong
    assert not torch.isfinite(defence.apply(given, drawn(defence, given))["w"]).all()


def defended(kind: str, **changes: Any) -> TrainedBank:
    scenario = tiny(defences=[{"kind": kind}], **changes)
    return simulate(scenario, build(scenario))


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)


@every_defence
def test_engines_and_executors_agree(kind: str) -> None:
    """One by one to the last bit, with and without messages; stacked but for rounding, in stacks of any size."""
    rule = defended(kind, speed={"executor": "one_by_one", "server": "rule"})
    messages = defended(kind, speed={"executor": "one_by_one", "server": "messages"})
    assert same(rule.params, messages.params)
    plain = simulate(tiny(), build(tiny()))
    if kind != "clip":
        assert not same(rule.params, plain.params)
    stacked = defended(kind, speed={"executor": "stacked"})
    for one, other in zip(rule.params, stacked.params, strict=True):
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5)
    scenario = tiny(defences=[{"kind": kind}], speed={"executor": "stacked"})
    alone = simulate(scenario, build(scenario), runs=[2])
    assert same(alone.params, stacked.params[2:3])


def test_each_place_has_its_own_draws_and_always_the_same() -> None:
    noise, rounded = ({"kind": "noise"}, {"kind": "quantise"})
    out = DefencePipeline([catalogue.build("defence", d) for d in (noise, rounded, noise)], seed=5)
    places = [Place(run=r, round=1, client=c) for r in (0, 1) for c in (0, 1)]
    together = out.draws(update(), places)
    assert list(together) == ["0", "1", "2"]
    for position, rows in together.items():
        assert rows.shape == (4, 17)
        assert len({tuple(row) for row in rows.tolist()}) == 4
        for row, place in zip(rows, places, strict=True):
            assert torch.equal(out.draws(update(), [place])[position][0], row)
    assert not torch.equal(together["0"], together["2"])
    later = out.draws(update(), [Place(run=0, round=2, client=0)])
    assert not torch.equal(later["0"][0], together["0"][0])
    assert not torch.equal(DefencePipeline(out._defences, seed=6).draws(update(), places)["0"], together["0"])
    # a defence that draws nothing in the place of another moves nobody's draws
    other = DefencePipeline([catalogue.build("defence", d) for d in ({"kind": "clip"}, rounded, noise)], seed=5)
    assert torch.equal(other.draws(update(), places)["2"], together["2"])


def test_counters_leave_as_they_are() -> None:
    out = DefencePipeline([catalogue.build("defence", {"kind": "noise", "multiplier": 1.0})], seed=0)
    before = {**update(), "seen": torch.tensor(3)}
    model = {**update(1), "seen": torch.tensor(7)}
    drawn_for = {name: value[0] for name, value in out.draws(before, [Place(run=0, round=1, client=0)]).items()}
    sent = out.apply_defences(model, before, drawn_for)
    assert list(sent) == list(model)
    assert sent["seen"] is model["seen"]
    assert not torch.equal(sent["w"], model["w"])
