"""Direct tests of mechanisms: each broken one is found, and healthy ones are left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measurement import FINAL, Labels, Measurement, Reading
from fedmem.errors import ScenarioError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.privacy import mechanism_alarms
from fedmem.privacy.mechanism_tests import Release, batch_statistics, p_of_mean, p_of_pairs, p_of_variance, projections
from fedmem.probes._release_tests import SERVER, new_draws_of_tree
from fedmem.reporting.privacy_sections import mechanism
from strategies._rule import ServerRule
from strategies.dp_ftrl import DpFtrl
from tests.broken_mechanisms import BROKEN, broken
from tests.tiny import tiny

PROBE: list[dict[str, Any]] = [{"kind": "mechanism"}]
CANARIES: dict[str, Any] = {"kind": "canary_clients"}
EVERYONE = {"kind": "everyone"}
SERVERS: dict[str, dict[str, Any]] = {
    "dp_fedavg": {"kind": "dp_fedavg", "clip": 0.1, "expected_cohort_size": 5},
    "dp_adaptive": {"kind": "dp_adaptive", "initial_clip": 0.1, "expected_cohort_size": 5},
    "dp_ftrl": {"kind": "dp_ftrl", "clip": 0.1, "expected_cohort_size": 5},
}
PRIVATE: dict[str, Any] = {
    "kind": "dp_sgd",
    "lr": 0.5,
    "steps": 3,
    "batch_size": 20,
    "clip": 0.2,
    "noise_multiplier": 1.0,
}


def made(**changes: Any) -> Any:
    """A tiny federation whose clients differ, so that their updates do."""
    settings: dict[str, Any] = {
        "runs": 2,
        "sampler": EVERYONE,
        "partition": {"kind": "dirichlet", "alpha": 0.3},
        "observe": {"every": 1},
        "probes": PROBE,
        "speed": {"executor": "one_by_one", "workers": 1},
    }
    return tiny(**{**settings, **changes})


def outcome(scenario: Any, name: str) -> tuple[list[str], list[Measurement]]:
    """The alarms of a scenario in which the mechanism is broken, and its rows."""
    with broken(name):
        rows = simulate(scenario, build(scenario)).measurements
    return mechanism_alarms.alarms(scenario, rows), list(rows)


CASES = [(kind, name) for kind in SERVERS for name in ("healthy", *BROKEN[:-1])]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_broken_noise_of_the_server_is_found(kind: str, name: str) -> None:
    rounds = 8 if kind == "dp_ftrl" else 3
    found, _ = outcome(made(strategy=SERVERS[kind], rounds=rounds), name)
    assert bool(found) == (name != "healthy")
    assert all("mechanism, global: " in alarm for alarm in found)


@pytest.mark.parametrize(
    ("name", "executor"),
    [
        *((name, "one_by_one") for name in ("healthy", *BROKEN)),
        *((name, "stacked") for name in ("healthy", "noise_4", "clip_10")),
    ],
)
def test_broken_steps_of_clients_are_found(name: str, executor: str) -> None:
    scenario = made(client=PRIVATE, rounds=2, model={"kind": "logistic"}, speed={"executor": executor, "workers": 1})
    found, _ = outcome(scenario, name)
    assert bool(found) == (name != "healthy")
    assert all("mechanism, local: " in alarm for alarm in found)


def test_the_smallest_array_without_noise_is_found() -> None:
    found, _ = outcome(made(strategy=SERVERS["dp_fedavg"]), "one_layer:output.bias")
    assert "noise variance" in found[0]
    assert "array=output.bias" in found[0]
    assert "release=server" in found[0]


HEALTHY: list[dict[str, Any]] = [
    {"strategy": {**SERVERS["dp_fedavg"], "cap": 20}},
    {
        "strategy": {**SERVERS["dp_fedavg"], "canary_clients": 30, "expected_cohort_size": 35},
        "probes": [*PROBE, CANARIES],
    },
    {"strategy": {**SERVERS["dp_ftrl"], "honaker": False, "restart": 3}, "rounds": 7},
    {"strategy": {**SERVERS["dp_ftrl"], "server_lr": 0.5, "momentum": 0.9}},
    {"client": {**PRIVATE, "momentum": 0.9, "decay": 0.8}, "defences": [{"kind": "quantise"}]},
    {"sampler": {"kind": "poisson", "rate": 0.3}, "strategy": {**SERVERS["dp_fedavg"], "expected_cohort_size": 1.5}},
]


@pytest.mark.parametrize("changes", HEALTHY)
def test_whatever_else_a_healthy_mechanism_does_is_no_alarm(changes: dict[str, Any]) -> None:
    found, rows = outcome(made(**changes), "healthy")
    assert not found
    assert any(row.reading.metric == mechanism_alarms.METRIC for row in rows)


def test_what_the_table_says() -> None:
    scenario = made(strategy=SERVERS["dp_fedavg"])
    healthy, quiet = outcome(scenario, "healthy"), outcome(scenario, "noise_10")
    assert not mechanism(healthy[1]).notes
    section = mechanism(quiet[1])
    assert section.title == "MECHANISM"
    ((_, lines),) = section.blocks
    assert lines[0][0] == "global: all 9 tests together"
    assert "The global mechanism is not the stated one" in section.notes[0]
    silent = made(strategy=SERVERS["dp_fedavg"], probes=[{"kind": "mechanism", "alarm": False}])
    assert not outcome(silent, "noise_10")[0]


def test_watching_changes_nothing() -> None:
    scenario = made(client=PRIVATE)
    seen, unseen = (simulate(scenario, build(scenario), watch=watch) for watch in (True, False))
    for one, other in zip(seen.params, unseen.params, strict=True):
        assert all(bool((one[name] == other[name]).all()) for name in one)


def test_what_cannot_be_tested_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"states noise that could be tested; use dp_fedavg"):
        made()
    with pytest.raises(ScenarioError, match=r"global must be observed for probe mechanism"):
        made(strategy=SERVERS["dp_fedavg"], observe={"levels": ["local"]})


def test_the_noise_that_a_tree_states_is_that_of_its_rule() -> None:
    """Over many runs the change of each round has the stated variance."""
    import torch

    from strategies._rule import Round

    runs = 2000
    before = {"w": torch.zeros(runs, 1, dtype=torch.float64)}
    nobody = torch.full((runs, 1), -1)
    for tree in (
        DpFtrl(clip=2.0, noise_multiplier=0.5, expected_cohort_size=1.0, restart=5),
        DpFtrl(clip=2.0, noise_multiplier=0.5, expected_cohort_size=1.0, honaker=False),
    ):
        assert isinstance(tree, ServerRule)
        state, now = tree.state(before, 1), before
        releases: dict[tuple[Labels, int, int, int], FloatArray] = {}
        rows: list[Measurement] = []
        for number in range(1, 9):
            round_number = Round(
                number=number,
                before=now,
                sent={name: value[:, None] for name, value in now.items()},
                weights=torch.zeros(runs, 1, dtype=torch.float64),
                present=nobody >= 0,
                clients=nobody,
                generators=lambda number=number: tuple(np.random.default_rng([number, run]) for run in range(runs)),  # type: ignore[misc]
            )
            after, state = tree.rule(state, round_number)
            changed = (after["w"] - now["w"]).numpy()
            stated = tree.release_statement(number)
            assert stated is not None
            expected = (stated["noise"] * stated["clip"]) ** 2
            assert stated["noise"] == pytest.approx(0.5 * stated["deviation"])
            assert np.mean(changed**2) == pytest.approx(expected, rel=0.1)
            now = after
            releases[SERVER, 0, -1, number] = changed[:, 0] / expected**0.5
            for name in ("place", "deviation", "new", *(name for name in stated if name.startswith("left:"))):
                reading = Reading(metric="tree", value=stated[name], n=1, labels=SERVER.plus(statistic=name))
                rows.append(
                    Measurement(run=0, round=number, level="global", client=-1, source="mechanism", reading=reading)
                )
        drawn = np.array([value for _, value in sorted(new_draws_of_tree(releases, rows).items())])
        # standard normal and independent, which the changes themselves are not
        assert np.corrcoef(drawn) == pytest.approx(np.eye(8), abs=0.08)
        assert (drawn**2).mean(axis=1) == pytest.approx(np.ones(8), rel=0.1)
        assert np.abs(np.corrcoef(np.array(list(releases.values()))) - np.eye(8)).max() > 0.3


# --- the statistics ---------------------------------------------------------------------------------------------------


def release(rng: np.random.Generator, **changes: Any) -> Release:
    """Six contributions of different lengths, some longer than the clip, with the noise of the guarantee."""
    contributions = rng.standard_normal((6, 500)) * np.array([0.01, 0.02, 0.1, 0.2, 0.5, 1.0])[:, None]
    made = Release(
        total=np.zeros(500), contributions=contributions, clip=1.0, scale=2.0, arrays={"w": 400, "b": 100}, **changes
    )
    return replace(made, total=made.clipped_sum + 2.0 * rng.standard_normal(500))


def test_the_sum_of_contributions_is_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    made = release(rng, weights=np.linspace(0, 1, 6), canaries=rng.standard_normal(500), canary_length=3.0)
    expected = np.zeros(500)
    whole = np.zeros(500)
    for weight, one in zip(np.linspace(0, 1, 6), made.contributions, strict=True):
        expected += weight * one * min(1.0, 1.0 / np.sqrt((one**2).sum()))
        whole += weight * one
    assert made.canaries is not None
    np.testing.assert_allclose(made.clipped_sum, expected + made.canaries)
    excess = whole + 3 * made.canaries - made.clipped_sum
    np.testing.assert_allclose(made.directions["excess"], excess / np.linalg.norm(excess))


def test_p_values_are_uniform_under_the_stated_mechanism() -> None:
    rng = np.random.default_rng(1)
    found: dict[str, list[float]] = {}
    for _ in range(400):
        one, other = release(rng), release(rng)
        inside, dimension = one.in_span(rng)
        assert dimension == 6
        found.setdefault("variance", []).append(p_of_variance([float(np.mean(one.noise**2))], [500]))
        found.setdefault("span", []).append(p_of_variance([inside], [dimension]))
        for name, direction in one.directions.items():
            found.setdefault(name, []).append(p_of_mean(np.array([one.noise @ direction])))
        pair = (projections(each.noise, np.random.default_rng(5))[None] for each in (one, other))
        found.setdefault("pairs", []).append(p_of_pairs(*pair))
        members = rng.random((6, 300)) < 0.2
        for name, score in batch_statistics(members, 0.2).items():
            found.setdefault(name, []).append(p_of_mean(np.array([score])))
    assert len(found) == 8
    for name, values in found.items():
        # the law of sums of counts is nearly normal
        assert abs(np.mean(np.array(values) < 0.05) - 0.05) < 0.035, name
        assert 0.42 < np.mean(values) < 0.58, name


def test_no_batches_are_drawn_at_rates_zero_and_one() -> None:
    assert not batch_statistics(np.ones((3, 4), dtype=bool), 1.0)
    assert not batch_statistics(np.zeros((0, 4), dtype=bool), 0.5)
    assert set(batch_statistics(np.zeros((1, 4), dtype=bool), 0.5)) == {"size", "spread"}


def test_batches_of_a_fixed_size_are_no_poisson_batches() -> None:
    rng = np.random.default_rng(2)
    members = np.zeros((40, 200), dtype=bool)
    for row in members:
        row[rng.choice(200, 40, replace=False)] = True
    found = batch_statistics(members, 0.2)
    assert abs(found["size"]) < 1e-9
    assert found["spread"] < -4


def test_summaries_are_at_the_end_and_of_all_tests() -> None:
    _, rows = outcome(made(client=PRIVATE), "healthy")
    own = [row for row in rows if row.reading.metric == mechanism_alarms.METRIC]
    assert {row.round for row in own} == {FINAL}
    whole = [row for row in own if row.reading.labels.get("test") == "all"]
    assert [row.reading.n for row in whole] == [len(own) - 1]
    smallest = min(row.reading.value for row in own if row not in whole)
    assert whole[0].reading.value == pytest.approx(min(1.0, smallest * (len(own) - 1)))
