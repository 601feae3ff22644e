"""Tree aggregation: what noise a prefix has, that prefixes share it, and what one client can move."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.contracts.evidence import Participation
from fedmem.contracts.measurement import NO_CLIENT
from fedmem.engines._flower import in_process
from fedmem.errors import ScenarioError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.privacy import spending
from fedmem.privacy.accounting import gaussian_epsilon, guarantee_of
from fedmem.strategies._tree import moved_by_one
from fedmem.strategies.dp_fedavg import DpFedAvg
from fedmem.strategies.dp_ftrl import DpFtrl
from tests.cohorts import by_rule, cohort, drawn, flat, models, stacked
from tests.labelling import labels
from tests.tiny import tiny

SIZE = 20_000


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def noises(strategy: Any, rounds: int) -> list[Any]:
    """The noise of the model after each round in which nobody changes anything, in standard deviations of a node."""
    before = {"w": torch.zeros(1, SIZE)}
    one = stacked(1, [cohort(np.random.default_rng(0), 1)], {})
    state, found = strategy.state(before, 9), []
    for number in range(1, rounds + 1):
        sent = {"w": before["w"][:, None]}

        def generators(number: int = number) -> tuple[np.random.Generator, ...]:
            return (drawn(0, number),)

        there = replace(one, number=number, before=before, sent=sent, generators=generators)
        before, state = strategy.rule(state, there)
        found.append(before["w"][0].double().numpy() * strategy.expected_cohort_size / strategy.clip)
    return found


def ones(number: int) -> int:
    return bin(number).count("1")


# --- noise ------------------------------------------------------------------------------------------------------------


def test_prefix_noise_counts_the_ones_of_its_length() -> None:
    found = noises(DpFtrl(clip=0.5, expected_cohort_size=3.0, honaker=False), 17)
    for number, noise in enumerate(found, start=1):
        assert noise.var() == pytest.approx(ones(number), rel=0.05)
    # noise that is new in each round adds up instead
    assert noises(DpFedAvg(clip=0.5, expected_cohort_size=3.0), 17)[-1].var() == pytest.approx(17, rel=0.05)


def test_prefixes_share_the_noise_of_the_nodes_that_they_share() -> None:
    """6 = 4 + 2 and 7 = 4 + 2 + 1 share two nodes, 7 and 8 none; 12 = 8 + 4 and 8 one."""
    found = noises(DpFtrl(honaker=False), 12)
    for one, other, shared in [(6, 7, 2), (7, 8, 0), (8, 12, 1), (5, 6, 1), (11, 12, 1)]:
        assert np.mean(found[one - 1] * found[other - 1]) == pytest.approx(shared, abs=0.06)
    assert np.array_equal(found[3], noises(DpFtrl(honaker=False), 4)[3])


def test_honaker_estimates_each_node_from_all_below_it() -> None:
    """2^l / (2^(l + 1) - 1) of each node of level l, 2/3 and 4/7 where it was 1."""
    found = noises(DpFtrl(), 15)
    for number, noise in enumerate(found, start=1):
        levels = [level for level in range(5) if number >> level & 1]
        assert noise.var() == pytest.approx(sum(2**level / (2 ** (level + 1) - 1) for level in levels), rel=0.05)


def test_honaker_weighting_has_the_smallest_variance() -> None:
    """Least squares from the noisy sums of all seven nodes over four rounds, by hand."""
    leaves = np.eye(4)
    nodes = np.array([*leaves, leaves[0] + leaves[1], leaves[2] + leaves[3], leaves.sum(0)])
    least = np.ones(4) @ np.linalg.inv(nodes.T @ nodes) @ np.ones(4)
    assert least == pytest.approx(4 / 7)
    assert noises(DpFtrl(), 4)[-1].var() == pytest.approx(least, rel=0.05)


def test_a_new_tree_begins_on_top_of_the_old_one() -> None:
    found = noises(DpFtrl(honaker=False, restart=4), 10)
    assert [round(noise.var()) for noise in found] == [1, 1, 2, 1, 2, 2, 3, 2, 3, 3]
    assert np.mean(found[3] * found[8]) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("honaker", [True, False])
def test_without_noise_it_is_the_clipped_mean(honaker: bool) -> None:
    rng = np.random.default_rng(0)
    before, rounds = models(rng, 1), [[cohort(rng, 4)] for _ in range(6)]
    silent: dict[str, Any] = {"noise_multiplier": 0.0, "clip": 0.5, "expected_cohort_size": 4.0}
    mean = by_rule(DpFedAvg(**silent), rounds, before)
    tree = by_rule(DpFtrl(**silent, honaker=honaker), rounds, before)
    for one, other in zip(tree, mean, strict=True):
        np.testing.assert_allclose(flat(one), flat(other), rtol=1e-5, atol=1e-6)


def test_tree_momentum_equals_hand_calculation() -> None:
    """Of the noise alone: v_2 = 0.5 r_1 + r_2, w_2 = eta (v_1 + v_2)."""
    plain, moving = (noises(DpFtrl(momentum=m, server_lr=eta), 3) for m, eta in ((0.0, 1.0), (0.5, 0.2)))
    first, second, third = np.diff([np.zeros(SIZE), *plain], axis=0)
    velocity = [first, 0.5 * first + second, 0.25 * first + 0.5 * second + third]
    np.testing.assert_allclose(moving[2], 0.2 * sum(velocity), rtol=1e-3, atol=1e-4)


def test_restarts_and_rounds_belong_to_runs_of_messages_too() -> None:
    """In a federation where rounds are empty, both paths count them."""
    by_path = {}
    for server in ("messages", "rule"):
        sampler = {"kind": "dropout", "rate": 0.7, "sampler": {"kind": "min_separation", "size": 1, "separation": 3}}
        speed = {"server": server, "executor": "one_by_one", "workers": 1}
        strategy = {"kind": "dp_ftrl", "expected_cohort_size": 1.0, "clip": 0.2, "restart": 3, "momentum": 0.5}
        scenario = tiny(runs=2, rounds=6, sampler=sampler, strategy=strategy, speed=speed, observe={})
        by_path[server] = simulate(scenario, build(scenario))
    assert {part.round for part in by_path["rule"].bank.participation} < set(range(1, 7))
    for one, other in zip(by_path["messages"].params, by_path["rule"].params, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


# --- what one client moves --------------------------------------------------------------------------------------------


# --- the promise ------------------------------------------------------------------------------------------------------

RESTING = {"kind": "min_separation", "size": 1, "separation": 5}
TREE = {"kind": "dp_ftrl", "expected_cohort_size": 1.0}


def private(**changes: Any) -> Any:
    return tiny(**{"runs": 2, "rounds": 8, "sampler": RESTING, "strategy": TREE, "injections": [], **changes})


def only(scenario: Any) -> Any:
    (one,) = spending.of_scenario(scenario)
    return one


def test_one_participation_costs_the_height_of_the_tree() -> None:
    one = only(private(rounds=5)).releases
    assert (one.sampling, one.adjacency, one.count) == ("tree", "zero_out", 3)
    assert guarantee_of(one).epsilon == pytest.approx(gaussian_epsilon(math.sqrt(3), 1e-5))
    assert "tree, moved by 1.732 clips" in str(guarantee_of(one))
    twice = guarantee_of(replace(one, adjacency="replace")).epsilon
    assert twice == pytest.approx(gaussian_epsilon(2 * math.sqrt(3), 1e-5))


@pytest.mark.parametrize(
    ("sampler", "cohort_size", "pause", "adjacency"),
    [
        (RESTING, 1.0, 5, "zero_out"),
        ({"kind": "cyclic", "size": 2}, 2.0, 2, "zero_out"),
        ({"kind": "everyone"}, 5.0, 1, "add_remove"),
        ({"kind": "dropout", "sampler": RESTING}, 1.0, 5, "zero_out"),
    ],
)
def test_tree_uses_the_samplers_minimum_separation(
    sampler: dict[str, Any], cohort_size: float, pause: int, adjacency: str
) -> None:
    found = only(private(sampler=sampler, strategy={**TREE, "expected_cohort_size": cohort_size}))
    assert (found.min_separation, found.releases.adjacency) == (pause, adjacency)
    assert found.releases.count == moved_by_one(8, pause)


def test_tree_noise_reaches_the_target_and_grows_with_rounds() -> None:
    given = [
        private(strategy={**TREE, "noise_multiplier": None}, privacy={"target_epsilon": 8.0}, rounds=rounds)
        for rounds in (5, 40)
    ]
    assert all(7.9 < guarantee_of(only(one).releases).epsilon <= 8 for one in given)
    assert given[1].strategy.noise_multiplier > 2 * given[0].strategy.noise_multiplier


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"sampler": {"kind": "uniform", "size": 1}}, "sampler", "may pick a client in any round"),
        ({"sampler": {"kind": "poisson", "rate": 0.2}}, "sampler", "Use min_separation, cyclic or everyone"),
        ({"sampler": {"kind": "availability", "size": 1}}, "sampler", "minimum separation"),
        ({"sampler": {"kind": "by_size", "size": 1}}, "sampler", "leaks their data"),
        (
            {"strategy": {**TREE, "expected_cohort_size": 3.0}},
            "strategy.expected_cohort_size",
            "write expected_cohort_size: 1",
        ),
        ({"privacy": {"adjacency": "add_remove"}}, "privacy.adjacency", "is not defined"),
        ({"strategy": {**TREE, "noise_multiplier": None}}, "strategy.noise_multiplier", "target_epsilon is not given"),
    ],
)
def test_where_the_bound_does_not_hold_it_is_refused(
    changes: dict[str, dict[str, Any]], path: str, message: str
) -> None:
    with pytest.raises(ScenarioError) as error:
        private(**changes)
    found = {problem.path: problem.message for problem in error.value.problems}
    assert message in found[path]


def test_tree_epsilon_is_by_round_and_by_participations() -> None:
    scenario = private(observe={"every": 2})
    there = [(0, 1), (1, 2), (2, 3), (0, 6), (1, 7)]
    parts = [
        Participation(run=run, round=round_number, client=client, num_examples=5, failed=False)
        for client, round_number in there
        for run in (0, 1)
    ]
    bank: Any = type("Bank", (), {"participation": parts})
    rows = list(spending.epsilon_rows(scenario, bank))
    by_round = {row.round: row.reading for row in rows if row.client == NO_CLIENT}
    assert {number: reading.n for number, reading in by_round.items()} == {2: 2, 4: 4, 6: 6, 8: 8}
    values = [reading.value for _, reading in sorted(by_round.items())]
    assert values == sorted(values)
    assert by_round[8].value == guarantee_of(only(scenario).releases).epsilon
    assert by_round[8].labels.has(labels("sampling=tree", min_separation=5))
    own = {row.client: row.reading for row in rows if row.round is None}
    assert {client: reading.n for client, reading in own.items()} == {0: 2, 1: 2, 2: 1}
    assert own[2].value == pytest.approx(gaussian_epsilon(2.0, 1e-5))
    assert own[2].value < own[0].value == by_round[8].value
    told = spending.spending_record(scenario, bank)
    assert told is not None
    assert (told["mechanisms"][0]["releases"], told["mechanisms"][0]["min_separation"]) == (8, 5)


def test_participations_keep_the_samplers_minimum_separation() -> None:
    """What the promise counts on, seen in cohorts that were drawn."""
    samplers: list[dict[str, Any]] = [
        RESTING,
        {"kind": "cyclic", "size": 2},
        {"kind": "dropout", "rate": 0.4, "sampler": RESTING},
    ]
    for sampler in samplers:
        scenario = private(
            sampler=sampler, rounds=40, strategy={**TREE, "expected_cohort_size": float(sampler.get("size", 1))}
        )
        pause = only(scenario).min_separation
        simulated = simulate(scenario, build(scenario))
        when: dict[int, list[int]] = {}
        for part in simulated.bank.participation:
            if part.run == 0:
                when.setdefault(part.client, []).append(part.round)
        gaps = [gap for rounds in when.values() for gap in np.diff(sorted(rounds)).tolist()]
        assert min(gaps) >= pause
