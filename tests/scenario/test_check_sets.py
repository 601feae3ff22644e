"""Tests of `fedmem/scenario/check_sets.py`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenario.declared_helpers import LEFT_OUT, refusal

GLOBAL = {"levels": ["global"]}
POPULATION = {"kind": "membership", "attack": {"kind": "attack_p"}}


def observing(**sets: Any) -> dict[str, Any]:
    return {"levels": ["local", "global"], **sets}


@pytest.mark.parametrize("name", ["test", "population"])
def test_sets_are_read_at_observed_levels_alone(name: str) -> None:
    ((path, message),) = refusal(observe={"levels": ["global"], name: {"levels": ["global", "local"]}})
    assert path == f"observe.{name}.levels[1]"
    assert "level local is not observed, since observe.levels is [global]; add it there" in message
    ((path, message),) = refusal(observe=observing(**{name: {"levels": ["global", "global"]}}))
    assert path == f"observe.{name}.levels[1]"
    assert "named twice" in message
    assert not refusal(observe=observing(**{name: {"levels": ["local"]}}))
    ((path, _),) = refusal(observe=observing(**{name: {"levels": []}}))
    assert path == f"observe.{name}.levels"


@pytest.mark.parametrize(("level", "other"), [("local", "global"), ("global", "local")])
def test_attack_needs_the_population_at_every_level(level: str, other: str) -> None:
    ((path, message),) = refusal(estimators=[POPULATION], observe=observing(population={"levels": [level]}), runs=8)
    assert path == "observe.population.levels"
    assert f"needs the outputs of models on the population at level {other}" in message
    assert f"evaluated on it at level {level} alone; add {other}, or leave" in message
    whole = {"levels": [level], "population": {"levels": [level]}}
    assert not refusal(estimators=[POPULATION], observe=whole, runs=8), (
        "at a level that is not observed, none is needed"
    )


def test_client_influence_needs_the_test_set_after_aggregation() -> None:
    influence = LEFT_OUT | {"estimators": [{"kind": "client_influence"}]}
    ((path, message),) = refusal(**influence, observe=observing(test={"levels": ["local"]}))
    assert path == "observe.test.levels"
    assert message.startswith(
        "client_influence (estimators[0]) needs the outputs of models on the test set at level glob"
    )
    assert not refusal(**influence, observe=observing(test=GLOBAL))


def test_a_declared_need_of_the_test_set_is_met_or_refused() -> None:
    own = [{"kind": "tests.declaring:AtClients"}]
    ((path, message),) = refusal(estimators=own, observe=observing(test=GLOBAL))
    assert path == "observe.test.levels"
    assert "tests.declaring:AtClients (estimators[0])" in message
    assert "at level local. Models are evaluated on it at level global alone; add local" in message
    assert not refusal(estimators=own, observe={"levels": ["global"]}), "what it reads is not observed at all"
    assert not refusal(estimators=own, observe=observing(test={"rows": 5}))


def test_estimators_over_all_levels_accept_one() -> None:
    both = [{"kind": "cross_influence"}, {"kind": "unique_information"}]
    assert not refusal(estimators=both, observe=observing(test=GLOBAL))


def test_ranks_on_the_test_set_refuse_float32() -> None:
    rounded = observing(test={"precision": "float32"})
    ((path, message),) = refusal(estimators=[{"kind": "cross_influence"}], observe=rounded)
    assert path == "observe.test.precision"
    assert "cross_influence (estimators[0]) ranks outputs on the test set" in message
    assert "write float64, or leave cross_influence out" in message
    assert not refusal(estimators=[{"kind": "unique_information"}, {"kind": "memorisation"}], observe=rounded)


def test_precision_is_one_of_two() -> None:
    ((path, message),) = refusal(observe=observing(test={"precision": "float16"}))
    assert path == "observe.test.precision"
    assert "float32" in message
