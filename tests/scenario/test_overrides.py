"""Tests of `fedmem/scenario/overrides.py`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fedmem.injections.mislabelled import Mislabelled
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.scenario import Scenario
from tests.narrowing import instance
from tests.scenario.scenario_helpers import SMALL, problems


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("client.lr=1e-2", lambda s: s.client.lr, 0.01),
        ("client.lr=1", lambda s: s.client.lr, 1.0),
        ("client.steps=null", lambda s: s.client.steps, None),
        ("client.steps=3", lambda s: s.client.steps, 3),
        ("model.hidden=[4, 4]", lambda s: s.model.hidden, (4, 4)),
        ("model={kind: mlp, hidden: []}", lambda s: s.model.hidden, ()),
        ("injections.0.copies=4", lambda s: s.injections[0].copies, 4),
        ("injections[0].copies=4", lambda s: s.injections[0].copies, 4),
        ("injections[0].label=a_b", lambda s: s.injections[0].name, "a_b"),
        ("observe.every=2", lambda s: s.observed_rounds, (0, 2, 4, 6)),
        ("save.params=true", lambda s: s.save.params, True),
        ("name=other", lambda s: s.name, "other"),
        ("estimators[0].attack.kind=loss_threshold", lambda s: len(s.estimators), 1),
    ],
)
def test_overrides_are_typed_as_yaml(override: str, read: Callable[[Scenario], object], value: object) -> None:
    assert read(parse_scenario(SMALL, overrides=[override])) == value


BARE = "{rounds: 2, clients: 3, dataset: {kind: synthetic}, model: {kind: logistic}}"


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("client.lr=0.05", lambda s: (type(s.client).__name__, s.client.lr), ("Sgd", 0.05)),
        ("partition.min_rows=2", lambda s: (type(s.partition).__name__, s.partition.min_rows), ("IID", 2)),
        ("client.kind=top_k", lambda s: type(s.client).__name__, "TopK"),
        ("tolerate.not_finite=true", lambda s: s.tolerate.not_finite, True),
    ],
)
def test_defaults_that_no_file_writes_can_be_changed(
    override: str, read: Callable[[Scenario], object], value: object
) -> None:
    assert read(parse_scenario(BARE, overrides=[override])) == value
    assert "choose from: kind, lr" in str(problems(BARE, "client.lrr=1")[0])


def test_later_overrides_win() -> None:
    assert parse_scenario(SMALL, overrides=["seed=1", "seed=2"]).seed == 2


def test_new_kind_drops_unknown_fields_and_keeps_known_ones() -> None:
    assert parse_scenario(SMALL, overrides=["strategy.kind=fedmedian"]).dump()["strategy"] == {"kind": "fedmedian"}
    text = SMALL.replace("kind: typical, per_client: 1", "kind: random_pattern, per_client: 3, values: uniform")
    scenario = parse_scenario(text, overrides=["injections[0].kind=mislabelled"])
    assert instance(scenario.injections[0], Mislabelled).per_client == 3


def test_a_new_kind_notes_what_it_keeps_and_drops() -> None:
    text = SMALL.replace("  lr: 0.1", "  lr: 0.1\n  clip: 1.0\n  noise_multiplier: 1.1").replace(
        "kind: sgd", "kind: dp_sgd"
    )
    notes = parse_scenario(text, overrides=["client.kind=sgd"]).notes
    (note,) = [note for note in notes if "client.kind" in note]
    assert "client.kind is sgd instead of dp_sgd, and keeps lr=0.1, clip=1.0" in note
    assert "drops noise_multiplier=1.1 of the file" in note
    assert not [note for note in parse_scenario(SMALL, overrides=["client.kind=sgd"]).notes if "client.kind" in note]


@pytest.mark.parametrize("changes", [["client.kind=sgd", "client.clip=null"], ["client.clip=null", "client.kind=sgd"]])
def test_a_note_of_a_new_kind_is_written_after_all_changes(changes: list[str]) -> None:
    text = SMALL.replace("  lr: 0.1", "  lr: 0.1\n  clip: 1.0\n  noise_multiplier: 1.1").replace(
        "kind: sgd", "kind: dp_sgd"
    )
    (note,) = [note for note in parse_scenario(text, overrides=changes).notes if "client.kind" in note]
    assert "keeps lr=0.1 and drops noise_multiplier=1.1 of the file" in note
    assert "clip" not in note


def test_another_kind_inside_a_component_drops_too() -> None:
    text = SMALL.replace("runs: 4", "runs: 8").replace("kind: loss_threshold", "kind: lira, variance: pooled")
    scenario = parse_scenario(text, overrides=["estimators[0].attack.kind=loss_threshold"])
    assert scenario.dump()["estimators"][0]["attack"] == {"kind": "loss_threshold"}


def test_field_set_for_a_replaced_kind_is_a_problem() -> None:
    found = problems(SMALL, "strategy.beta_1=0.5", "strategy.kind=fedmedian")
    assert [(p.source, p.path) for p in found] == [("--set strategy.beta_1=0.5", "strategy.beta_1")]


@pytest.mark.parametrize(
    ("override", "path", "says"),
    [
        ("client.lr", "", "path=value"),
        ("=3", "", "no path"),
        ("a b=3", "", "no path"),
        ("injections[7].copies=4", "", "injections has 1 entries"),
        ("injections.first=4", "", "there is no 'first'"),
        ("client[0]=4", "", "client has keys"),
        ("rounds.x=4", "", "rounds is 6"),
        ("client.lr=[1", "", "not valid YAML"),
        ("clint.lr=1", "clint", "did you mean 'client'?"),
        ("client.lr=-1", "client.lr", "greater than 0"),
        ("client={kind: sgd, lr: -1}", "client.lr", "greater than 0"),
        ("client.kind=sdg", "client.kind", "did you mean 'sgd'?"),
        ("strategy.kind=3", "strategy.kind", "should be text"),
        ("runs=3", "runs", "odd"),
        ("observe.rounds=[7]", "observe.rounds[0]", "never happens"),
    ],
)
def test_mistakes_in_overrides_name_the_override(override: str, path: str, says: str) -> None:
    found = problems(SMALL, override)
    assert [(problem.source, problem.path) for problem in found] == [(f"--set {override}", path)]
    assert says in found[0].message


def test_file_line_is_blamed_for_the_rest_of_an_override() -> None:
    assert problems(SMALL.replace("lr: 0.1", "lr: -1"), "client.steps=4")[0].line == 8
