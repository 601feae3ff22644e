"""Tests of `fedmem/probes/imprint.py`: the law of occupancy, exact rows, sums, steps, defences, and broken servers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.errors import ScenarioError
from fedmem.probes import _dishonest
from fedmem.probes._dishonest import Plan, find_isolated, quotients
from fedmem.probes._first_layer import FirstLayer
from fedmem.probes.imprint import Imprint, expected_isolated, gaps_of
from tests.probes.dishonest_helpers import BRIEF, SUMS, measured, values

IMPRINT: dict[str, Any] = {"kind": "imprint", "runs": 4, "victims": 4}


def layer_of(units: int, width: int) -> FirstLayer:
    """A layer that is given the inputs as they are."""
    names = {"weight": "w", "bias": "b", "following": "v"}
    return FirstLayer(**names, units=units, outputs=3, offset=np.zeros(width), scale=np.ones(width))


def plan_of(arrived: Any, bins: int, rng: np.random.Generator) -> Plan:
    return Imprint(bins=bins)._plan(arrived, layer_of(bins, arrived.shape[1]), 8, rng)


@pytest.mark.parametrize(("bins", "rows"), [(64, 23.7), (128, 39.0), (256, 50.0), (1024, 60.2)])
def test_large_populations_have_the_published_law(bins: int, rows: float) -> None:
    expected = 64 * expected_isolated(64, gaps_of(bins, 10**8))
    assert expected == pytest.approx(rows, abs=0.06)
    assert expected == pytest.approx(64 * (1 - 1 / bins) ** 63, rel=1e-4)


def test_the_law_of_one_row_and_of_one_bin() -> None:
    assert expected_isolated(1, gaps_of(7, 30)) == pytest.approx(1.0)
    assert (expected_isolated(1, gaps_of(1, 30)), expected_isolated(2, gaps_of(1, 30))) == (1.0, 0.0)


def simulated(own_rows: bool = False, draws: int = 400) -> tuple[float, float]:
    """The mean share of rows alone in one of 20 bins, of 12 rows and 30 of the population, and its standard error."""
    rng, shares = np.random.default_rng(1), []
    for _ in range(draws):
        rows, population = rng.random((12, 3)), rng.random((30, 3))
        plan = plan_of(np.concatenate([rows, rows])[:19] if own_rows else population, 20, rng)
        shares.append(find_isolated(plan.cells(rows)).mean())
    return float(np.mean(shares)), float(np.std(shares) / np.sqrt(draws))


def test_a_small_population_has_a_law_of_its_own() -> None:
    share, error = simulated()
    assert share == pytest.approx(expected_isolated(12, gaps_of(20, 30)), abs=4 * error)
    assert abs(share - (1 - 1 / 20) ** 11) > 4 * error, "the law of known probabilities is another"


def test_thresholds_from_the_rows_themselves_are_noticed() -> None:
    """A server that knew the projections of the client would do better than the law."""
    share, error = simulated(own_rows=True)
    assert share > expected_isolated(12, gaps_of(20, 30)) + 10 * error


@pytest.mark.parametrize("direction", ["random", "brightness"])
def test_rows_alone_in_a_bin_are_exact_as_the_law_expects(direction: str) -> None:
    rows = measured({**IMPRINT, "direction": direction}, runs=8)
    exact = values(rows, "exact_rows", server="dishonest")
    assert exact == values(rows, "isolated_rows")
    (expected,) = set(values(rows, "isolated_rows_expected"))
    # rows of one batch share their bins, which is at most eight times the binomial variance
    assert np.mean(exact) == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / len(exact)))
    assert expected == pytest.approx((1 - 1 / 16) ** 7, abs=0.02)
    assert np.mean(exact) > np.mean(values(rows, "exact_rows", server="honest")) + 0.1


def test_one_row_is_exact_to_a_millionth() -> None:
    client = {"kind": "sgd", "lr": 0.1, "steps": 1, "batch_size": 1}
    rows = measured(
        {**IMPRINT, "tolerance": 1e-6, "amplification": 10.0},
        client=client,
        injections=[{"kind": "typical", "per_client": 12}],
    )
    exact = values(rows, "exact_rows", server="dishonest")
    assert exact == [1.0] * len(exact)
    assert len(exact) >= 4


def test_only_examples_that_are_in_are_exact() -> None:
    rows = measured(IMPRINT, client={"kind": "sgd", "lr": 0.1, "steps": 1, "batch_size": 100})
    assert set(values(rows, "exact", server="dishonest", coin="out")) == {0.0}
    assert max(values(rows, "exact", server="dishonest", coin=None)) == 1.0
    differences = [row.reading for row in rows if row.run is None and row.reading.metric == "exact.difference"]
    assert differences
    assert all(one.low <= one.value <= one.high and one.n > 0 for one in differences)


def test_sums_follow_the_law_of_all_their_rows() -> None:
    rows = measured({**IMPRINT, "levels": ["local", "sum"]}, runs=8, **SUMS)
    means = []
    for view, count, clients in (("message", 8, None), ("sum", 16, 2), ("sum", 32, 4)):
        labels = {"view": view} if clients is None else {"view": view, "clients": clients}
        exact = values(rows, "exact_rows", server="dishonest", **labels)
        expected = expected_isolated(count, gaps_of(16, 200))
        assert set(values(rows, "isolated_rows_expected", **labels)) == {expected}
        assert np.mean(exact) == pytest.approx(expected, abs=4 * np.sqrt(expected / count / len(exact)) + 0.05)
        means.append(np.mean(exact))
    assert means[0] > means[1] > means[2] > 0


def test_later_steps_blur_bins() -> None:
    client = {"kind": "sgd", "lr": 0.3, "steps": 6, "batch_size": 8}
    rows = measured({**IMPRINT, "steps": [1, 6, 7]}, client=client)
    first, later = (values(rows, "exact_rows", steps=steps) for steps in (1, 6))
    assert np.mean(first) > np.mean(later) + 0.1
    assert not values(rows, "exact_rows", steps=7), "the client does six steps"
    assert values(rows, "isolated_rows_expected", steps=6)[0] < values(rows, "isolated_rows_expected", steps=1)[0]


def test_equal_rows_are_not_alone_and_yet_exact() -> None:
    rng = np.random.default_rng(0)
    rows = np.array([[0.2, 0.7], [0.2, 0.7], [0.9, 0.1]])
    plan = plan_of(rng.random((40, 2)), 8, rng)
    cells = plan.cells(rows)
    assert find_isolated(cells).tolist() == [False, False, True]
    slopes = np.array([0.3, 0.5, 0.7])
    fires = rows @ plan.weight.T + plan.bias > 0
    gradient = fires.T.astype(float) @ (slopes[:, None] * np.c_[rows, np.ones(3)])
    found = quotients(gradient, adjacent=True)
    assert np.abs(found[:, None] - rows).max(2).min(0) == pytest.approx(0.0, abs=1e-9)


def test_a_message_that_says_nothing_has_no_quotients() -> None:
    assert quotients(np.zeros((3, 4)), adjacent=True).shape == (0, 3)
    assert quotients(np.full((3, 4), np.nan), adjacent=False).shape == (0, 3)


def _no_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    real = _dishonest.quotients
    monkeypatch.setattr(_dishonest, "quotients", lambda gradient, *, adjacent: real(gradient, adjacent=False))


def _wrong_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    real = _dishonest.quotients

    def skipping(gradient: Any, *, adjacent: bool) -> Any:
        return real(gradient[::2] if adjacent else gradient, adjacent=adjacent)

    monkeypatch.setattr(_dishonest, "quotients", skipping)


def _sign(monkeypatch: pytest.MonkeyPatch) -> None:
    real = _dishonest.quotients
    monkeypatch.setattr(_dishonest, "quotients", lambda gradient, *, adjacent: -real(gradient, adjacent=adjacent))


def _own_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    real = FirstLayer.with_units
    monkeypatch.setattr(FirstLayer, "with_units", lambda self, *sent: real(self, *sent[:3]))


@pytest.mark.parametrize("broken", [_no_differences, _wrong_neighbour, _sign, _own_columns])
def test_a_broken_server_finds_less_than_what_is_alone(monkeypatch: pytest.MonkeyPatch, broken: Any) -> None:
    broken(monkeypatch)
    rows = measured(IMPRINT)
    assert np.mean(values(rows, "exact_rows", server="dishonest")) < np.mean(values(rows, "isolated_rows")) - 0.1


def test_clipping_keeps_quotients_and_noise_does_not() -> None:
    clip = {"kind": "clip", "norm": 0.1}
    clipped = measured(IMPRINT, defences=[clip])
    assert values(clipped, "exact_rows", server="dishonest") == values(clipped, "isolated_rows")
    noisy = measured(IMPRINT, defences=[clip, {"kind": "noise", "multiplier": 0.1, "norm": 0.1}])
    assert max(values(noisy, "exact_rows", server="dishonest")) == 0.0


DECAYED: dict[str, Any] = {**BRIEF["client"], "weight_decay": 0.1}
WITHOUT_DATA: dict[str, dict[str, Any]] = {
    "decay": {"client": DECAYED},
    "momentum": {"client": {**DECAYED, "momentum": 0.9, "steps": 2, "lr": 1e-3, "weight_decay": 10.0}},
    "proximal": {"client": DECAYED, "strategy": {"kind": "fedprox", "mu": 0.5}},
    "clip": {"client": DECAYED, "defences": [{"kind": "clip", "norm": 0.05}]},
    "scaffold": {"client": DECAYED, "strategy": {"kind": "scaffold"}, "rounds": 2},
    "feddyn": {"client": BRIEF["client"], "strategy": {"kind": "feddyn"}, "rounds": 2},
}


@pytest.mark.parametrize("changes", WITHOUT_DATA.values(), ids=WITHOUT_DATA)
def test_moves_without_data_are_taken_off(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    probe = {**IMPRINT, "runs": 2, "rounds": [changes.get("rounds", 1)]}
    rows = measured(probe, **{"runs": 2} | changes)
    exact = values(rows, "exact_rows", server="dishonest")
    if "momentum" in changes["client"]:  # thresholds move between the two steps
        assert np.mean(exact) > 0.1
    else:
        assert exact == values(rows, "isolated_rows")
    monkeypatch.setattr(_dishonest, "train_without_data", lambda sender, start, steps, context: start)
    rest = values(measured(probe, **{"runs": 2} | changes), "exact_rows", server="dishonest")
    assert np.mean(rest) < np.mean(exact) - 0.1


def test_a_scale_that_is_not_read_leaves_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dishonest, "scale_of", lambda updates, drifts, sizes: 1.0)
    rows = measured({**IMPRINT, "kind": "trap_weights"}, **WITHOUT_DATA["clip"])
    assert np.mean(values(rows, "exact_rows", server="dishonest")) < np.mean(values(rows, "isolated_rows"))


def test_more_bins_than_units_or_population_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"imprint has 17 bins, .* 16 units .* 200 rows. Set bins to at most 16"):
        measured({**IMPRINT, "bins": 17})
    with pytest.raises(ScenarioError, match="Set bins to at most 6"):
        measured(IMPRINT, population=5)
    with pytest.raises(ScenarioError, match=r"there is no population. Set population: 200"):
        measured(IMPRINT, population=0)
