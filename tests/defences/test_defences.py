"""Clipping, pruning, quantising, noise: each against its closed form; what is sent against what is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.contracts.arrays import Params
from fedmem.defences.clip import Clip
from fedmem.defences.noise import Noise
from fedmem.defences.prune import Prune
from fedmem.defences.quantise import Quantise
from fedmem.errors import ScenarioError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.training.defence_pipeline import DefencePipeline, Place
from fedmem.training.executor import Settings
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import LocalWork, Stacked
from tests.engines.test_seams import Everything, watched
from tests.tiny import tiny


def update(*shape: int, seed: int = 0, scale: float = 1.0) -> Params:
    rng = np.random.default_rng(seed)
    return {
        "a": torch.from_numpy((scale * rng.normal(size=shape or (40, 5))).astype(np.float32)),
        "b": torch.from_numpy((3 * scale * rng.normal(size=30)).astype(np.float32)),
    }


def norm(params: Params) -> float:
    return float(torch.cat([value.double().reshape(-1) for value in params.values()]).norm())


@settings(max_examples=50, deadline=None)
@given(bound=st.floats(1e-3, 1e3), scale=st.floats(1e-6, 1e6))
def test_a_clipped_update_has_norm_s_or_is_unchanged(bound: float, scale: float) -> None:
    given = update(scale=scale)
    found = Clip(norm=bound).apply(given, {})
    if norm(given) > bound * (1 + 1e-6):
        assert norm(found) == pytest.approx(bound, rel=1e-6)
        for name, value in given.items():
            torch.testing.assert_close(found[name] * (norm(given) / bound), value, rtol=1e-5, atol=0)
    elif norm(given) < bound * (1 - 1e-6):
        assert all(torch.equal(found[name], given[name]) for name in given)


def test_the_norm_is_over_all_parameters_and_does_not_overflow() -> None:
    found = Clip(norm=5.0).apply({"a": torch.full((9,), 1e30), "b": torch.full((16,), -1e30)}, {})
    assert found["a"].tolist() == pytest.approx([1.0] * 9)
    assert found["b"].tolist() == pytest.approx([-1.0] * 16)


@settings(max_examples=50, deadline=None)
@given(share=st.floats(0, 1))
def test_the_smallest_share_of_each_layer_is_cut(share: float) -> None:
    given = update()
    found = Prune(share=share).apply(given, {})
    for name, value in given.items():
        cut = found[name] == 0
        assert int(cut.sum()) == int(np.floor(share * value.numel() + 1e-9))
        assert torch.equal(found[name][~cut], value[~cut])
        if cut.any() and not cut.all():
            assert value[cut].abs().max() <= value[~cut].abs().min()


def test_within_the_model_small_layers_lose_more() -> None:
    given = update()
    cut = {name: int((v == 0).sum()) for name, v in Prune(share=0.5, within="model").apply(given, {}).items()}
    magnitudes = torch.cat([v.reshape(-1) for v in given.values()]).abs()
    border = magnitudes.sort().values[115]
    assert cut == {name: int((v.abs() < border).sum()) for name, v in given.items()}
    assert sum(cut.values()) == 115
    assert cut["a"] > 100
    assert cut["b"] < 15


def test_of_ties_the_first_go_first_and_0_29_of_100_is_29() -> None:
    flat = {"w": torch.tensor([1.0, -1.0, 1.0, 2.0])}
    assert Prune(share=0.5).apply(flat, {})["w"].tolist() == [0.0, 0.0, 1.0, 2.0]
    many = {"w": torch.arange(1.0, 101.0)}
    assert int((Prune(share=0.29).apply(many, {})["w"] == 0).sum()) == 29


def uniform(like: Params, seed: int) -> Params:
    rng = np.random.default_rng(seed)
    return {name: torch.from_numpy(rng.random(tuple(v.shape), dtype=np.float32)) for name, v in like.items()}


@pytest.mark.parametrize("scale", ["max", "norm"])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_levels_are_whole_and_errors_below_a_step(bits: int, scale: Any) -> None:
    given, s = update(), 2 ** (bits - 1) - 1
    for rounding, most in (("stochastic", 1.0), ("nearest", 0.5)):
        found = Quantise(bits=bits, rounding=rounding, scale=scale).apply(given, uniform(given, 3))  # type: ignore[arg-type]
        for name, value in given.items():
            step = float(value.abs().max() if scale == "max" else value.double().norm()) / s
            levels = found[name].double() / step
            assert torch.allclose(levels, levels.round(), atol=1e-4)
            assert levels.abs().max() <= s + 1e-4
            assert (found[name] - value).abs().max() <= most * step * (1 + 1e-5)
            assert (found[name] * value >= 0).all()


def spread(quantise: Quantise, value: torch.Tensor, draws: int = 4000) -> torch.Tensor:
    """(draws, n) outcomes of the same update."""
    repeated = {"w": value.expand(draws, -1)}
    drawn = uniform(repeated, 4)
    return torch.vmap(quantise.apply)(repeated, drawn)["w"].double()


@pytest.mark.parametrize("scale", ["max", "norm"])
def test_stochastic_rounding_is_unbiased_and_its_variance_is_that_of_a_coin(scale: Any) -> None:
    value = update()["b"]
    quantise = Quantise(bits=3, scale=scale)
    found = spread(quantise, value)
    step = float(value.abs().max() if scale == "max" else value.double().norm()) / 3
    share = value.double().abs() / step % 1
    variance = step**2 * share * (1 - share)
    error = (found.mean(dim=0) - value) / (variance / len(found)).sqrt().clamp(min=1e-6)
    assert error.abs().max() < 4
    torch.testing.assert_close(found.var(dim=0), variance, rtol=0.1, atol=0.02 * step**2)


def test_nearest_rounding_is_biased_and_the_test_above_would_see_it() -> None:
    value = update()["b"]
    found = Quantise(bits=3, rounding="nearest").apply({"w": value}, {})["w"]
    step = float(value.abs().max()) / 3
    assert (found - value).abs().max() > 4 * step / 2 / np.sqrt(4000)
    torch.testing.assert_close(found, (value / step).round() * step)


def test_noise_has_the_standard_deviation_that_it_says() -> None:
    """The variance of n normal numbers, times (n - 1) / sigma^2, is chi-squared."""
    from scipy import stats

    from fedmem.training.defence_pipeline import DefencePipeline, Place

    model = {"w": torch.zeros(100_000)}
    noise = DefencePipeline([Noise(multiplier=0.3, norm=0.5)], seed=1)
    drawn = {name: rows[0] for name, rows in noise.draws(model, [Place(run=0, round=1, client=0)]).items()}
    found = noise.apply_defences(model, model, drawn)["w"].double().numpy()
    freedom = len(found) - 1
    low, high = (stats.chi2.ppf(level, df=freedom) / freedom for level in (1e-4, 1 - 1e-4))
    assert low < found.var(ddof=1) / 0.15**2 < high
    assert not low < found.var(ddof=1) / 0.16**2 < high
    assert abs(found.mean()) < 4 * 0.15 / np.sqrt(len(found))
    assert stats.kstest(found / 0.15, "norm").pvalue > 1e-3


@pytest.mark.parametrize("server", ["messages", "rule"])
@pytest.mark.parametrize("executor", [OneByOne, Stacked])
def test_the_server_is_sent_what_is_clipped_and_the_client_keeps_what_it_trained(server: str, executor: type) -> None:
    scenario = tiny(defences=[{"kind": "clip", "norm": 0.05}, {"kind": "quantise", "bits": 3}], rounds=2)
    federation, seen = build(scenario), Everything()
    from fedmem.engines.lockstep import Lockstep
    from fedmem.training.defence_pipeline import DefencePipeline

    work = LocalWork(federation, scenario.client, scenario.seed)
    out = DefencePipeline(scenario.defences, scenario.seed)
    trainer = executor(federation.model, scenario.client, federation.store, Settings(defences=out))
    finished = Lockstep(scenario, federation, trainer, work, seen).train(range(4), server)
    undefended = watched(tiny(rounds=2), server, executor)[1].local
    for place, transition in seen.local.items():
        moved = {n: transition.kept[n] - v for n, v in transition.before.items()}
        assert norm(moved) > 0.06
        for name, value in transition.before.items():
            assert len(np.unique((transition.sent[name] - value).mul(1e4).round().numpy())) <= 7
            if place[1] == 1:
                assert torch.equal(transition.kept[name], undefended[place].kept[name])
    # the average is of what was sent
    start = federation.initial
    assert all(norm({n: v - start[n] for n, v in params.items()}) < 0.11 for params in finished.params)


def test_noise_that_is_no_multiple_of_the_clip_before_it_is_refused() -> None:
    clip, noise = {"kind": "clip", "norm": 0.5}, {"kind": "noise", "multiplier": 1.0}
    with pytest.raises(ScenarioError, match=r"defences\[1\].norm: noise is a multiple .* which is 0.5, not 1; write"):
        tiny(defences=[clip, noise])
    assert len(tiny(defences=[clip, {**noise, "norm": 0.5}]).defences) == 2
    assert len(tiny(defences=[noise, clip]).defences) == 2


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_an_update_that_is_not_finite_leaves_as_noise_alone_where_a_guarantee_is_stated(bad: float) -> None:
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


NOISY = {"defences": [{"kind": "clip", "norm": 0.1}, {"kind": "noise", "norm": 0.1, "multiplier": 30.0}]}
CENTRAL = {"strategy": {"kind": "dp_fedavg", "noise_multiplier": 1.0, "clip": 0.1, "expected_cohort_size": 5}}


@pytest.mark.parametrize("changes", [NOISY, CENTRAL], ids=["clients", "server"])
@pytest.mark.parametrize(("server", "executor"), [("rule", "stacked"), ("messages", "one_by_one")])
def test_a_run_with_a_guarantee_goes_on_where_all_clients_diverge(changes: Any, server: str, executor: str) -> None:
    """Failing would tell who diverged, and no noise covers that."""
    scenario = tiny(
        client={"kind": "sgd", "lr": 1e30, "epochs": 1, "batch_size": 8},
        rounds=2,
        runs=2,
        sampler={"kind": "everyone"},
        privacy={"delta": 0.01},
        speed={"server": server, "executor": executor},
        **changes,
    )
    found = simulate(scenario, build(scenario))
    assert not any(part.failed for part in found.bank.participation)
    for params in found.params:
        assert all(torch.isfinite(value).all() for value in params.values())
