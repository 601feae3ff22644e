"""Clients of random direction: where they point, when they come, what they add, and what is read of them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch

import fedmem
from fedmem.contracts.measurement import Reading
from fedmem.errors import ComponentError, ScenarioError
from fedmem.execution.bank import gather, simulate
from fedmem.execution.join_shards import join
from fedmem.execution.run import compute, measure
from fedmem.federation.build import build
from fedmem.privacy.accounting import Releases
from fedmem.privacy.amplification import canaries_of
from fedmem.privacy.canary_directions import CanaryDirections, flatten
from fedmem.privacy.epsilon_bounds import AuditedUnit, permitted_guarantee
from fedmem.privacy.epsilon_estimates import one_shot, two_shots
from fedmem.reporting.privacy_sections import sections as privacy_sections
from fedmem.reporting.sections import sections
from fedmem.reporting.summary import Summary
from fedmem.scenario.scenario import RESULTS_VERSION
from fedmem.strategies._rule import Round
from fedmem.strategies.dp_adaptive import DpAdaptive
from fedmem.strategies.dp_fedavg import DpFedAvg
from fedmem.strategies.dp_ftrl import DpFtrl
from tests.broken_mechanisms import broken
from tests.labelling import labels
from tests.narrowing import present
from tests.privacy.canary_clients_helpers import SHAPES, estimates, rows_of
from tests.tiny import tiny

POISSON = {"kind": "poisson", "rate": 0.5}
PRIVATE = {"kind": "dp_fedavg", "clip": 0.5, "expected_cohort_size": 22.5, "canary_clients": 40}
READ = {"probes": [{"kind": "canary_clients"}], "observe": {"every": 1}}
ONE_BY_ONE = {"executor": "one_by_one", "workers": 1}
CLIENT = AuditedUnit(unit="client", adjacency="add_remove")


def made(**changes: Any) -> Any:
    """A tiny federation with forty canary clients."""
    settings = {"runs": 2, "sampler": POISSON, "strategy": PRIVATE, "speed": ONE_BY_ONE, **READ}
    return tiny(**{**settings, **changes})


# --- where they point, and when they come -----------------------------------------------------------------------------


def test_directions_are_uniform_and_differ_between_runs() -> None:
    canaries = CanaryDirections(seed=1, count=400)
    found = np.array(list(canaries.directions(0, SHAPES)))
    assert found.shape == (400, 126)
    np.testing.assert_allclose((found**2).sum(1), 1.0)
    # each coordinate has mean 0 and variance 1/d, and no two point the same way
    assert np.abs(found.mean(0)).max() < 5 / math.sqrt(400 * 126)
    assert (found**2).mean(0).max() < 1.6 / 126
    assert (found**2).mean(0).min() > 0.6 / 126
    assert np.abs(found @ found.T - np.eye(400)).max() < 0.6
    np.testing.assert_array_equal(found[:7], list(replace(canaries, count=7, rate=0.1).directions(0, SHAPES)))
    for other in (
        canaries.directions(1, SHAPES),
        canaries.directions(0, SHAPES, fresh=True),
        replace(canaries, seed=2).directions(0, SHAPES),
    ):
        assert np.abs((found * np.array(list(other))).sum(1)).max() < 0.6


def test_canary_clients_come_independently_at_their_probability() -> None:
    canaries = CanaryDirections(seed=0, count=500, rate=0.3)
    came = np.array([canaries.participants(0, round_number) for round_number in range(1, 21)])
    assert came.mean() == pytest.approx(0.3, abs=0.02)
    # each by itself: what came in one round says nothing of the next
    assert (came[1:] & came[:-1]).mean() == pytest.approx(0.09, abs=0.015)
    assert not np.array_equal(came[0], canaries.participants(1, 1))
    assert CanaryDirections(seed=0, count=5).participants(0, 3).all()
    assert not CanaryDirections(seed=0, count=5, rate=0.0).participants(0, 3).any()


def test_regular_participations_come_once_per_separation() -> None:
    canaries = CanaryDirections(seed=0, count=300, min_separation=4)
    came = np.array([canaries.participants(0, round_number) for round_number in range(1, 13)])
    for start in range(9):
        assert (came[start : start + 4].sum(0) == 1).all()
    assert came.mean(1) == pytest.approx(0.25, abs=0.1)


def test_sums_are_those_of_who_comes_whatever_other_runs_do() -> None:
    canaries = CanaryDirections(seed=3, count=9, rate=0.5)
    like = {name: torch.zeros((2, *shape)) for name, shape in SHAPES.items()}
    sums, count = canaries.sums([4, 7], 2, like)
    for place, run in enumerate((4, 7)):
        here = canaries.participants(run, 2)
        naive = np.array(list(canaries.directions(run, SHAPES)))[here].sum(0)
        np.testing.assert_allclose(flatten({name: value[place] for name, value in sums.items()}), naive, atol=1e-14)
        assert count[place] == here.sum()
        alone, _ = canaries.sums([run], 2, {name: value[:1] for name, value in like.items()})
        assert all(torch.equal(alone[name][0], sums[name][place]) for name in like)
    nobody, none = replace(canaries, rate=0.0).sums([0], 1, {name: value[:1] for name, value in like.items()})
    assert none.tolist() == [0.0]
    assert not any(value.any() for value in nobody.values())


# --- what they add to a sum -------------------------------------------------------------------------------------------


def round_of(canary_updates: Any, sent: float | None = None, number: int = 1) -> Round:
    """One client who sends this many ones, or nobody."""
    before = {name: torch.zeros((1, *shape)) for name, shape in SHAPES.items()}
    there = torch.tensor([[sent is not None]])
    return Round(
        number=number,
        before=before,
        sent={name: value[:, None] + (sent or 0.0) for name, value in before.items()},
        weights=there.double(),
        present=there,
        clients=torch.where(there, 0, -1),
        generators=lambda: (np.random.default_rng(number),),
        canary_updates=canary_updates,
    )


QUIET: dict[str, Any] = {"noise_multiplier": 0.0, "expected_cohort_size": 4.0, "canary_clients": 3}


@pytest.mark.parametrize(
    ("strategy", "clip"),
    [
        (DpFedAvg(clip=0.3, **QUIET), 0.3),
        (DpFedAvg(clip=0.3, cap=5, **QUIET), 0.3),
        (DpAdaptive(initial_clip=0.2, **QUIET), 0.2),
        (DpFtrl(clip=0.3, **QUIET), 0.3),
    ],
)
@pytest.mark.parametrize("sent", [None, 5.0])
def test_each_adds_a_direction_as_long_as_the_clip(strategy: Any, clip: float, sent: float | None) -> None:
    canaries = CanaryDirections(seed=0, count=3)
    expected = np.sum(list(canaries.directions(0, SHAPES)), axis=0)
    if sent is not None:
        # one client beside them, cut to the same length; under a cap of 5 its one row counts a fifth
        expected = expected + np.ones(126) / math.sqrt(126) / (getattr(strategy, "cap", None) or 1)
    given = round_of(lambda like: canaries.updates([0], 1, like), sent)
    after, _ = strategy.rule(strategy.state(given.before, 1), given)
    moved = flatten({name: value[0] for name, value in after.items()})
    np.testing.assert_allclose(moved, clip * expected / 4, atol=1e-7)


def test_strategies_without_canary_clients_are_unchanged() -> None:
    def never(like: Any) -> Any:
        raise AssertionError

    for strategy in (DpFedAvg(), DpAdaptive(), DpFtrl()):
        with_them, without = round_of(never, 5.0), round_of(None, 5.0)
        state = strategy.state(without.before, 1)
        one, other = strategy.rule(state, with_them)[0], strategy.rule(state, without)[0]
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("strategy", [DpFedAvg, DpAdaptive, DpFtrl])
def test_app_without_directions_gets_an_error(strategy: Any) -> None:
    some = strategy(canary_clients=3)
    given = round_of(None, 1.0)
    with pytest.raises(ValueError, match=r"has 3 canary clients.*write canary_clients=0"):
        some.rule(some.state(given.before, 1), given)


def test_an_adaptive_clip_follows_the_real_clients() -> None:
    """Half of two clients are below it, as it wishes, so that it stays, however many canary clients come."""
    strategy = DpAdaptive(
        initial_clip=1.0, quantile=0.5, noise_multiplier=0.0, expected_cohort_size=52.0, canary_clients=50
    )
    lopsided = replace(strategy, quantile=0.8, expected_cohort_size=52.5)
    canaries = CanaryDirections(seed=0, count=50)
    before = {"w": torch.zeros(1, 4)}
    sent = {"w": torch.tensor([[[0.1] * 4, [3.0] * 4]])}
    there = torch.ones((1, 2), dtype=torch.bool)
    given = Round(
        number=1,
        before=before,
        sent=sent,
        weights=there.double(),
        present=there,
        clients=torch.arange(2)[None],
        generators=lambda: (np.random.default_rng(0),),
        canary_updates=lambda like: canaries.updates([0], 1, like),
    )
    _, state = strategy.rule(strategy.state(before, 2), given)
    assert state["clip"].item() == pytest.approx(1.0)
    # below its wish it grows, as without canaries, and by the real clients' share of all
    _, state = lopsided.rule(lopsided.state(before, 2), given)
    assert state["clip"].item() > 1.0


# --- in a scenario ----------------------------------------------------------------------------------------------------

STRATEGIES: dict[str, Callable[..., Any]] = {
    "dp_fedavg": made,
    "dp_adaptive": lambda **changes: made(
        strategy={"kind": "dp_adaptive", "expected_cohort_size": 22.5, "canary_clients": 40}, **changes
    ),
    "dp_ftrl": lambda **changes: made(
        sampler={"kind": "cyclic", "size": 1},
        strategy={"kind": "dp_ftrl", "expected_cohort_size": 9, "canary_clients": 40},
        **changes,
    ),
}


@pytest.mark.parametrize("kind", STRATEGIES)
def test_rule_and_messages_give_the_same_bytes(kind: str) -> None:
    seen = []
    for server in ("rule", "messages"):
        scenario = STRATEGIES[kind](speed={**ONE_BY_ONE, "server": server})
        seen.append(simulate(scenario, build(scenario)))
    rule, messages = seen
    for one, other in zip(rule.params, messages.params, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert repr(rule.measurements) == repr(messages.measurements)
    assert len([row for row in rule.measurements if row.reading.metric == "canary_cosine"]) == 2 * 4 * 3 * 40


def test_empty_round_still_has_canary_clients() -> None:
    """Poisson cohorts of a federation of five are empty now and then; the canary clients are drawn by themselves."""
    ways = []
    for server in ("rule", "messages"):
        sampler, strategy = {"kind": "poisson", "rate": 0.2}, {**PRIVATE, "expected_cohort_size": 9}
        scenario = made(rounds=6, sampler=sampler, strategy=strategy, speed={**ONE_BY_ONE, "server": server})
        ways.append(simulate(scenario, build(scenario)))
    assert {part.round for part in ways[0].bank.participation} < set(range(1, 7))
    assert repr(ways[0].measurements) == repr(ways[1].measurements)


def test_canary_runs_trained_separately_equal_joint_ones() -> None:
    scenario = made()
    federation = build(scenario)
    whole = simulate(scenario, federation)
    parts = [gather(scenario, federation, runs=[run]) for run in (0, 1)]
    joined = join(parts, scenario.probes, scenario.seed)
    assert repr(joined.measurements) == repr(whole.measurements)


def test_canary_clients_do_not_change_other_streams() -> None:
    """Who takes part and what each trains on are as without them; only models differ."""
    plain = made(strategy={"kind": "dp_fedavg", "clip": 0.5, "expected_cohort_size": 2.5}, probes=[])
    some, none = (simulate(scenario, build(scenario)) for scenario in (made(), plain))
    assert some.bank.participation == none.bank.participation
    assert not torch.equal(next(iter(some.params[0].values())), next(iter(none.params[0].values())))


def test_ids_are_those_of_before_where_there_are_none() -> None:
    plain = tiny(strategy={"kind": "dp_fedavg", "expected_cohort_size": 2.5}, sampler=POISSON)
    later = (
        *(
            "speed",
            "central",
            "signals",
            "twins",
            "batches",
            "freeze",
            "norm",
            "tied_dropout",
            "client_shards",
            "coins",
        ),
        *("derive", "removed", "repeat", "then", "after", "unlearner"),
    )
    content = {key: value for key, value in plain.dump().items() if key not in later}
    assert content["strategy"].pop("canary_clients") == 0
    for name in ("goldfish", "goldfish_context", "deduplicate", "overlap"):
        content["client"].pop(name)
    for name in ("test", "population"):
        content["observe"].pop(name)
    for name in ("biases", "initial_scale"):
        content["model"].pop(name)
    for injection in content["injections"]:
        assert injection.pop("included") == "each"
    content["save"] = {key: value for key, value in content["save"].items() if key != "models"}
    text = json.dumps([RESULTS_VERSION, content], sort_keys=True, separators=(",", ":"))
    assert plain.id == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert made().id != made(strategy={**PRIVATE, "expected_cohort_size": 23, "canary_clients": 41}).id


@pytest.mark.parametrize(
    ("sampler", "chance", "pause", "neighbours"),
    [
        (POISSON, 0.5, None, "add_remove"),
        ({"kind": "everyone"}, 1.0, None, "add_remove"),
        ({"kind": "uniform", "size": 2}, 0.4, None, "zero_out"),
        ({"kind": "cyclic", "size": 1}, 1.0, 5, "zero_out"),
        ({"kind": "min_separation", "size": 1, "separation": 5}, 1.0, 5, "zero_out"),
    ],
)
def test_canary_clients_have_the_law_of_the_sampler(
    sampler: Any, chance: float, pause: int | None, neighbours: Literal["add_remove", "zero_out"]
) -> None:
    strategy = SimpleNamespace(canary_clients=3)
    scenario = SimpleNamespace(
        strategy=strategy, sampler=made(sampler=sampler, strategy={"kind": "fedavg"}, probes=[]).sampler, clients=5
    )
    asked: Any = SimpleNamespace(**vars(scenario), training_seed=0)
    found = canaries_of(asked)
    assert found == CanaryDirections(seed=0, count=3, rate=chance, min_separation=pause, adjacency=neighbours)


def test_tree_guarantee_is_zero_out_unless_everyone_participates() -> None:
    assert present(canaries_of(STRATEGIES["dp_ftrl"]())).adjacency == "zero_out"
    everyone = made(
        sampler={"kind": "everyone"},
        strategy={"kind": "dp_ftrl", "expected_cohort_size": 45, "canary_clients": 40},
        rounds=1,
    )
    assert present(canaries_of(everyone)).adjacency == "add_remove"


# --- what is read of them ---------------------------------------------------------------------------------------------


ONE_SHOT = "claim=estimate method=one_shot unit=client"


def test_the_cosines_of_all_runs_are_one_estimate() -> None:
    rng = np.random.default_rng(1)
    cosines = rng.normal(0.1, 1 / 30, size=(2, 50))
    found = estimates([row for run in (0, 1) for row in rows_of(cosines[run], "final canary", 3, run, "zero_out")])
    whole = one_shot(cosines.ravel(), 900, audited=CLIENT, delta=1e-5)
    hat, ceiling = found[3, "final", "epsilon_one_shot"], found[3, "final", "epsilon_one_shot.ceiling"]
    assert (hat.value, hat.low, hat.high, hat.n) == (whole.epsilon, whole.low, whole.high, 100)
    assert (ceiling.value, ceiling.n) == (whole.ceiling, 100)
    assert hat.labels == labels(f"{ONE_SHOT} shown=final adjacency=zero_out canaries=50 dimensions=900 delta=1e-05")
    assert len(found) == 2


def test_all_models_show_the_largest_cosine_of_all_rounds_so_far() -> None:
    rng = np.random.default_rng(2)
    inside, outside = rng.normal(0.03, 1 / 30, size=(3, 80)), rng.normal(0, 1 / 30, size=(3, 80))
    rows = []
    for round_number in (1, 2, 3):
        rows += rows_of(inside[round_number - 1], "final canary", round_number)
        rows += rows_of(inside[round_number - 1], "step canary", round_number) + rows_of(
            outside[round_number - 1], "step fresh", round_number
        )
    found = estimates(rows)
    for round_number in (1, 2, 3):
        sides = inside[:round_number].max(0), outside[:round_number].max(0)
        whole = two_shots(*sides, audited=CLIENT, delta=1e-5)
        assert found[round_number, "iterates", "epsilon_one_shot"].value == whole.epsilon
    assert found[3, "iterates", "epsilon_one_shot"].n == 80


def test_two_shots_between_two_normal_distributions() -> None:
    """Fitted to many scores it is the exact epsilon of the two; in units in which the null is no standard normal."""
    rng = np.random.default_rng(4)
    inside, outside = rng.normal(5.0, 2.0, 100_000), rng.normal(3.0, 2.0, 100_000)
    found = two_shots(inside, outside, audited=CLIENT, delta=1e-5)
    exact = permitted_guarantee(
        CLIENT, Releases(noise_multiplier=1, sampling="everyone", count=1, delta=1e-5, unit="client")
    )
    assert found.epsilon == pytest.approx(exact.epsilon, rel=0.05)
    assert found.low <= exact.epsilon <= found.high
    assert found.claim == "estimate"
    # the wrong way round there is nothing but chance
    assert two_shots(-inside, -outside, audited=CLIENT, delta=1e-5).epsilon < 0.5
    for few in (np.array([0.1]), np.array([np.nan, 0.1]), np.array([0.2, 0.2])):
        with pytest.raises(ComponentError, match="at least 2 of each"):
            two_shots(np.array([0.1, 0.2]), few, audited=CLIENT, delta=1e-5)


def test_run_reports_estimate_ceiling_and_permitted_epsilon(tmp_path: Path) -> None:
    scenario = made(rounds=2)
    folder = compute(scenario, build(scenario), tmp_path / "run", 0.0, force=False)
    stored = fedmem.read(folder)
    last = [row for row in stored.rows() if row.round == 2 and row.reading.metric.startswith("epsilon_one_shot")]
    about = f"{ONE_SHOT} adjacency=add_remove canaries=40 dimensions=556 delta=1e-05"
    assert {row.reading.labels for row in last} == {labels(about, shown=what) for what in ("final", "iterates")}
    releases = Releases(noise_multiplier=1.0, sampling="poisson", rate=0.5, count=2, delta=1e-5, unit="client")
    allowed = [row for row in last if row.reading.metric == "epsilon_one_shot.permitted"]
    assert {(row.source, row.reading.value) for row in allowed} == {
        ("privacy", permitted_guarantee(CLIENT, releases).epsilon)
    }
    assert len(allowed) == 2
    (section,) = (one for one in sections(Summary(stored)) if one.title == "CANARY CLIENTS")
    ((_, lines),) = section.blocks
    assert [line[0] for line in lines] == ["last model", "models of all rounds"]
    assert all(line[1] == "80" and line[-1].startswith("client, add_remove, canaries 40") for line in lines)
    before = (folder / "measurements.parquet").read_bytes()
    measure(folder)
    assert (folder / "measurements.parquet").read_bytes() == before


def test_permitted_epsilon_has_the_estimates_delta_and_adjacency() -> None:
    from fedmem.privacy.guaranteed_bounds import of_canary_clients

    scenario = made(
        sampler={"kind": "uniform", "size": 2},
        strategy={**PRIVATE, "expected_cohort_size": 18},
        privacy={"adjacency": "replace"},
        rounds=3,
    )
    own = labels(f"{ONE_SHOT} shown=final adjacency=zero_out canaries=40 dimensions=556 delta=0.001")
    reading = Reading(metric="epsilon_one_shot", value=1.0, low=0.5, high=2.0, n=80, labels=own)
    row = replace(rows_of([0.0], "final canary", 3)[0], run=None, reading=reading)
    (beside,) = of_canary_clients(scenario, [row, replace(row, round=2)])
    releases = Releases(
        noise_multiplier=1.0,
        sampling="fixed_size",
        rate=0.4,
        count=3,
        delta=1e-3,
        unit="client",
        adjacency="zero_out",
    )
    assert (
        beside.reading.value == permitted_guarantee(AuditedUnit(unit="client", adjacency="zero_out"), releases).epsilon
    )
    assert math.isnan(beside.reading.low)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strategy": {"kind": "fedavg"}}, r"probes\[0\]: strategy fedavg has no guarantee for clients"),
        (
            {"strategy": {"kind": "fedavg"}, "client": {"kind": "dp_sgd"}},
            r"dp_sgd hides records, which canary clients are not; use dp_fedavg",
        ),
        ({"strategy": {"kind": "norm_clipping", "canary_clients": 9}}, r"strategy.canary_clients: unknown"),
        (
            {"strategy": {"kind": "dp_fedavg", "expected_cohort_size": 2.5}},
            r"there are none; give strategy dp_fedavg some",
        ),
        ({"probes": []}, r"strategy.canary_clients: no probe reads what they show; add \{kind: canary_clients\}"),
        ({"strategy": {**PRIVATE, "expected_cohort_size": 3, "canary_clients": 1}}, "a single one has no spread"),
        ({"client": {"kind": "fedper"}}, "fedper keeps some at its clients"),
        ({"strategy": {**PRIVATE, "expected_cohort_size": 2.5}}, "22.5 clients are expected in a round"),
        (
            {"sampler": {"kind": "cyclic", "size": 2}},
            ": 2 in each of 2 rounds are 4, not all of 5",
        ),
        ({"sampler": {"kind": "availability"}}, "would be picked by availability is not defined"),
    ],
)
def test_invalid_canary_scenarios_are_refused_with_a_reason(changes: Any, said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        made(**changes)


def test_model_of_few_dimensions_is_refused_before_training(tmp_path: Path) -> None:
    scenario = made(model={"kind": "mlp", "hidden": [1]})
    federation = build(scenario)
    assert sum(value.numel() for value in federation.initial.values()) < 100
    with pytest.raises(ScenarioError, match=r"canary_clients: the model has \d+ parameters; in less than 100"):
        compute(scenario, federation, tmp_path / "run", 0.0, force=False)


@pytest.mark.parametrize("name", ["healthy", "no_clip", "clip_10", "clip_after_mean"])
def test_a_missing_or_wrong_clip_is_found_in_a_whole_run(name: str, tmp_path: Path) -> None:
    """The low end of the estimate is above what is permitted, and the table says so."""
    with broken(name):
        finished = fedmem.read(fedmem.run(made(probes=[{"kind": "canary_clients"}]), out=tmp_path))
    last = [row.reading for row in finished.rows() if row.round == 4]
    (estimate,) = [r for r in last if r.metric == "epsilon_one_shot" and r.labels.get("shown") == "final"]
    (permitted,) = [r for r in last if r.metric == "epsilon_one_shot.permitted" and r.labels.get("shown") == "final"]
    assert (estimate.low > permitted.value) == (name != "healthy")
    notes = [note for section in privacy_sections(finished) for note in section.notes]
    above = [note for note in notes if note.startswith("Above what is permitted: by the last model")]
    assert bool(above) == (name != "healthy")
