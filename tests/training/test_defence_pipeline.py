"""Tests of `fedmem/training/defence_pipeline.py`."""

from __future__ import annotations

import pytest
import torch

from fedmem.defences.clip import Clip
from fedmem.defences.noise import Noise
from fedmem.scenario import catalogue
from fedmem.training.defence_pipeline import DefencePipeline, Place
from tests.contracts.defence_helpers import update


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


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_non_finite_update_leaves_as_noise_under_a_guarantee(bad: float) -> None:
    before = {"w": torch.ones(3), "b": torch.zeros(1)}
    diverged = {"w": torch.tensor([bad, 0.0, 0.0]), "b": torch.zeros(1)}
    outgoing = DefencePipeline([Clip(norm=1.0), Noise(multiplier=2.0)], seed=0)
    draws = {name: value[0] for name, value in outgoing.draws(before, [Place(run=0, round=1, client=0)]).items()}
    still = outgoing.apply_defences(before, before, draws)
    found = outgoing.apply_defences(diverged, before, draws)
    assert all(torch.equal(found[name], still[name]) for name in before)
    assert not torch.equal(found["w"], before["w"])
    # a clip alone states no guarantee, and hides nothing
    assert not torch.isfinite(DefencePipeline([Clip(norm=1.0)], seed=0).apply_defences(diverged, before, {})["w"]).all()
    # a strategy that adds noise
    guarded = DefencePipeline([], seed=0, guaranteed=True)
    assert torch.equal(guarded.apply_defences(diverged, before, {})["w"], before["w"])
    moved = {name: value + 0.1 for name, value in before.items()}
    assert all(torch.equal(guarded.apply_defences(moved, before, {})[name], moved[name]) for name in before)
