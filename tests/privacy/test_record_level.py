"""Noise that is found for records once their numbers are known, and what delta has to be."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fedmem
from fedmem.cli.plan_text import check_file, plan_text
from fedmem.clients.dp_sgd import DpSgd
from fedmem.contracts.evidence import Participation
from fedmem.errors import ScenarioError
from fedmem.execution.run import folder_of, measure, run, with_required_noise
from fedmem.federation.build import build
from fedmem.privacy import record_level, spending
from fedmem.privacy.accounting import guarantee_of
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.scenario import Scenario
from tests.narrowing import instance, present
from tests.tiny import tiny

OPEN = {"kind": "dp_sgd", "lr": 0.3, "batch_size": 6, "epochs": 1, "noise_multiplier": None}
TARGET = {"target_epsilon": 6.0, "delta": 1e-4}


def private(**changes: Any) -> Any:
    return tiny(**{"runs": 2, "rounds": 3, "client": OPEN, "privacy": TARGET, "observe": {}, **changes})


def of_sizes(least: list[int], most: list[int], **changes: Any) -> tuple[Any, Any]:
    """A scenario and as much of a federation as accounting looks at."""
    owners = np.repeat(np.arange(len(least)), np.array(most) - np.array(least))
    federation = SimpleNamespace(
        base_sizes=np.array(least), num_clients=len(least), audit=SimpleNamespace(owners=owners)
    )
    return private(exclusion="remove", **changes), federation


def test_noise_is_the_smallest_within_the_target_for_all_clients() -> None:
    scenario, federation = of_sizes([20, 60, 200, 0], [22, 60, 240, 0])
    noise = present(instance(record_level.client_with_noise(scenario, federation), DpSgd).noise_multiplier)
    given = [guarantee_of(one).epsilon for one in record_level.releases(scenario, federation, noise)]
    assert max(given) == pytest.approx(6.0, rel=0.01)
    assert max(given) <= 6.0
    less = [guarantee_of(one).epsilon for one in record_level.releases(scenario, federation, noise * 0.98)]
    assert max(less) > 6.0


def test_releases_of_clients_follow_their_rows_and_the_sampler() -> None:
    """Of rates those of the fewest rows, of steps those of the most; of three rounds, two with a pause of two."""
    scenario, federation = of_sizes([20, 60, 600, 0], [22, 60, 600, 0])
    found = [(one.rate, one.count) for one in record_level.releases(scenario, federation, 1.0)]
    assert found == [(6 / 20, 3 * 4), (6 / 60, 3 * 10), (6 / 600, 3 * 100)]
    resting = {"kind": "min_separation", "size": 1, "separation": 2}
    scenario, federation = of_sizes([20, 60, 60], [22, 60, 60], sampler=resting)
    assert [one.count for one in record_level.releases(scenario, federation, 1.0)] == [2 * 4, 2 * 10]
    # with steps of a fixed number small clients are the worst, and nobody else counts
    steps = {**OPEN, "steps": 5}
    scenario, federation = of_sizes([20, 60, 600], [22, 60, 600], client=steps)
    assert [(one.rate, one.count) for one in record_level.releases(scenario, federation, 1.0)] == [(0.3, 15)]


def test_the_rows_are_those_that_clients_train_on() -> None:
    for exclusion in ("replace", "remove"):
        scenario = private(exclusion=exclusion)
        federation = build(scenario)
        least, most = record_level.sizes(scenario, federation)
        for client in range(5):
            seen = [len(federation.rows(run, client, round_number)) for run in (0, 1) for round_number in (1, 2, 3)]
            assert least[client] <= min(seen)
            assert max(seen) <= most[client]
            assert exclusion == "remove" or set(seen) == {least[client]}


def noise_of(scenario: Scenario) -> float:
    return present(instance(scenario.client, DpSgd).noise_multiplier)


def test_a_run_has_the_noise_that_was_found(tmp_path: Path) -> None:
    scenario = private()
    folder = run(scenario, out=tmp_path)
    assert folder == folder_of(scenario, tmp_path)
    finished = fedmem.read(folder)
    noise = noise_of(with_required_noise(scenario))
    assert noise_of(parse_scenario((folder / "scenario.yaml").read_text())) == noise > 0
    (said,) = finished.manifest["privacy"]["mechanisms"]
    assert said["noise_multiplier"] == noise
    assert 0 < said["epsilon"] <= 6
    assert set(said["bounds"]) == {"rdp", "prv", "pld", "gaussian"}
    assert run(scenario, out=tmp_path) == folder
    before = finished.measurements
    assert fedmem.read(measure(folder)).measurements.equals(before)


def test_everybody_every_round_reaches_the_target(tmp_path: Path) -> None:
    folder = run(private(sampler={"kind": "everyone"}), out=tmp_path)
    (said,) = fedmem.read(folder).manifest["privacy"]["mechanisms"]
    assert 5.9 < said["epsilon"] <= 6


def test_check_finds_and_prints_the_record_noise(tmp_path: Path) -> None:
    file = tmp_path / "open.yaml"
    file.write_text(private().to_yaml())
    checked = check_file(file)
    assert checked.scenario.client == with_required_noise(private()).client
    said = " ".join(plan_text(checked).split())
    assert "privacy client, against the updates that clients send: at most epsilon" in said
    assert f"noise multiplier {noise_of(present(checked.scenario)):.4g}" in said
    assert "within privacy.target_epsilon 6" in said


def test_noise_that_is_left_open_needs_a_target() -> None:
    with pytest.raises(ScenarioError, match=r"null means that .* but privacy.target_epsilon is not given"):
        private(privacy={})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client": {**OPEN, "noise_multiplier": 0.5}}, "client.noise_multiplier: 0.5 gives epsilon .* null to have"),
        ({"privacy": {**TARGET, "delta": 0.5}}, "privacy.delta: 0.5 allows publishing one of the .* smallest client"),
    ],
)
def test_noise_that_misses_the_target_on_the_data_is_refused(changes: Any, message: str, tmp_path: Path) -> None:
    scenario = private(**changes)
    with pytest.raises(ScenarioError, match=message):
        run(scenario, out=tmp_path)
    file = tmp_path / "wrong.yaml"
    file.write_text(scenario.to_yaml())
    with pytest.raises(ScenarioError, match=message):
        check_file(file)
    assert not folder_of(scenario, tmp_path).exists()


def test_delta_is_compared_with_the_rows_of_the_smallest_client() -> None:
    scenario, federation = of_sizes([20, 400], [20, 400])
    for delta, wrong in ((0.049, 0), (0.05, 1)):
        changed = scenario.model_copy(update={"privacy": scenario.privacy.model_copy(update={"delta": delta})})
        assert len(list(record_level.problems(changed, federation))) == wrong
    assert not list(record_level.problems(tiny(), federation))


def test_a_number_that_keeps_to_the_target_is_left_alone() -> None:
    scenario, federation = of_sizes([20, 60], [22, 60], client={**OPEN, "noise_multiplier": 5.0})
    assert not list(record_level.problems(scenario, federation))
    assert record_level.client_with_noise(scenario, federation) is scenario.client
    loud = [replace(one, noise_multiplier=0.3) for one in record_level.releases(scenario, federation, 5.0)]
    assert guarantee_of(loud[0]).epsilon > 6


def test_the_largest_epsilon_is_that_of_most_participations() -> None:
    scenario, federation = of_sizes([20, 60, 200, 0], [22, 60, 240, 0])
    noise = present(instance(record_level.client_with_noise(scenario, federation), DpSgd).noise_multiplier)
    scenario = private(exclusion="remove", client=OPEN | {"noise_multiplier": noise})
    largest = record_level.largest_epsilon(scenario, federation)
    target = present(scenario.privacy.target_epsilon)
    assert 0.97 * target < largest <= target
    assert math.isnan(record_level.largest_epsilon(tiny(), federation))
    parts = [Participation(run=0, round=1, client=0, num_examples=20, failed=False)]
    bank: Any = SimpleNamespace(participation=parts)
    (told,) = present(spending.spending_record(scenario, bank, largest))["mechanisms"]
    assert spending.largest_epsilon_of({"privacy": {"mechanisms": [told]}}) == largest >= told["epsilon"]
    (told,) = present(spending.spending_record(scenario, bank))["mechanisms"]
    assert "largest_epsilon" not in told
