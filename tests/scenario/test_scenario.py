"""Reading, overriding, freezing and naming scenarios."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedmem.errors import ScenarioError
from fedmem.scenario.catalogue import build, dump
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.scenario import RESULTS_VERSION, Scenario
from tests.scenario.scenario_helpers import SMALL, problems


def test_defaults_are_as_documented() -> None:
    scenario = parse_scenario("{rounds: 2, clients: 3, dataset: {kind: synthetic}, model: {kind: mlp}}", "x")
    assert scenario.dump() | {"dataset": None, "model": None} == {
        "name": "x",
        "seed": 0,
        "runs": 16,
        "rounds": 2,
        "clients": 3,
        "dataset": None,
        "partition": {"kind": "iid", "min_rows": 1},
        "model": None,
        "freeze": [],
        "norm": None,
        "tied_dropout": None,
        "client_shards": 1,
        "initial_weights": "shared",
        "twins": 1,
        "coins": {"law": "balanced", "rate": None, "alpha": None, "beta": None},
        "batches": "per_run",
        "sampler": {"kind": "everyone"},
        "client": scenario.dump()["client"],
        "defences": [],
        "strategy": {"kind": "fedavg", "weighting": "size"},
        "injections": [],
        "exclusion": "replace",
        "population": 200,
        "references": 1000,
        "roster": "shared",
        "cohort_by": "sampler",
        "central": None,
        "derive": None,
        "removed": None,
        "repeat": 0,
        "then": [],
        "after": None,
        "unlearner": None,
        "leave_out": {"clients": 0},
        "observe": {
            "every": None,
            "rounds": [],
            "levels": ["local", "global"],
            "sums": [],
            "test": {"levels": None, "rows": None, "precision": "float64"},
            "population": {"levels": None},
        },
        "probes": [],
        "signals": [],
        "estimators": [],
        "bootstrap": 1000,
        "privacy": {"delta": 1e-5, "target_epsilon": None, "adjacency": None},
        "tolerate": {"max_failed_share": 0.0, "not_finite": False},
        "save": {"params": False, "models": None},
        "speed": {
            "engine": "lockstep",
            "executor": "auto",
            "server": "auto",
            "threads": 1,
            "workers": "auto",
            "shard": 16,
            "device": "cpu",
            "precision": "fp32",
            "memory": None,
            "cache_prefix": "auto",
            "address": None,
            "seconds_per_client": 3600.0,
        },
    }
    assert scenario.observed_rounds == (0, 2)


def test_every_field_is_described() -> None:
    assert all(item.description for item in Scenario.model_fields.values())
    for name in ("observe", "tolerate", "save", "speed"):
        part: Any = Scenario.model_fields[name].annotation
        assert all(item.description for item in part.model_fields.values())


def test_a_scenario_cannot_be_changed() -> None:
    scenario = parse_scenario(SMALL)
    with pytest.raises(ValidationError, match="frozen"):
        scenario.rounds = 3
    with pytest.raises(ValidationError, match="frozen"):
        scenario.observe.every = 3


def test_a_scenario_made_in_python_is_checked_too() -> None:
    fields: dict[str, Any] = {
        "name": "x",
        "rounds": 2,
        "clients": 3,
        "dataset": {"kind": "synthetic"},
        "model": {"kind": "mlp"},
    }
    assert Scenario(**fields) == parse_scenario(
        "{rounds: 2, clients: 3, dataset: {kind: synthetic}, model: {kind: mlp}}", "x"
    )
    with pytest.raises(ValidationError, match="runs: 3 is odd"):
        Scenario(**fields, runs=3)
    with pytest.raises(ValidationError):
        Scenario(**fields, rnds=3)  # type: ignore[call-arg]  # which is refused


# Identity and round trip


def test_id_follows_what_decides_results_and_not_speed() -> None:
    base = parse_scenario(SMALL)
    same = [parse_scenario(SMALL, overrides=[text]) for text in ("speed.executor=one_by_one", "speed.threads=2")]
    other = [
        parse_scenario(SMALL, overrides=[text])
        for text in ("seed=1", "client.lr=0.2", "runs=6", "strategy.kind=fedmedian", "observe.every=2", "name=y")
    ]
    assert {scenario.id for scenario in same} == {base.id}
    assert len({scenario.id for scenario in [base, *other]}) == len(other) + 1
    assert len(base.id) == 12


def test_the_id_does_not_depend_on_how_the_file_is_written() -> None:
    flow = "{model: {hidden: [8], kind: mlp}, seed: 0, clients: 3, rounds: 6, dataset: {kind: synthetic}, runs: 2}"
    block = "runs: 2\nrounds: 6\nclients: 3\ndataset:\n  kind: synthetic\nmodel:\n  kind: mlp\n  hidden:\n  - 8\n"
    assert parse_scenario(flow).id == parse_scenario(block).id
    whole, fraction = (parse_scenario(SMALL, overrides=[f"client.lr={lr}"]) for lr in ("1", "1.0"))
    assert whole.id == fraction.id


def test_a_neutral_field_is_in_the_id_unless_at_its_default() -> None:
    kinds = ("dp_fedavg", "dp_adaptive", "dp_ftrl")
    for count in (0, 3):
        parts = [build("strategy", {"kind": kind, "canary_clients": count}) for kind in kinds]
        assert [dump(part).get("canary_clients") for part in parts] == [count] * 3
        assert [dump(part, for_id=True).get("canary_clients") for part in parts] == [count or None] * 3
    common = "rounds: 2, clients: 3, dataset: {kind: synthetic}, model: {kind: mlp}"
    scenario = parse_scenario(f"{{{common}, strategy: {{kind: dp_fedavg, expected_cohort_size: 3}}}}")
    neutral = (
        *(
            "speed",
            "central",
            "signals",
            "twins",
            "coins",
            "batches",
            "freeze",
            "norm",
            "tied_dropout",
            "client_shards",
        ),
        *("derive", "removed", "repeat", "then", "after", "unlearner"),
    )
    content = {name: value for name, value in scenario.dump().items() if name not in neutral}
    del content["strategy"]["canary_clients"], content["save"]["models"]
    del content["observe"]["test"], content["observe"]["population"]
    del content["model"]["biases"], content["model"]["initial_scale"]
    for name in ("goldfish", "goldfish_context", "deduplicate", "overlap"):
        del content["client"][name]
    text = json.dumps([RESULTS_VERSION, content], sort_keys=True, separators=(",", ":"))
    assert scenario.id == hashlib.sha256(text.encode()).hexdigest()[:12]
    changes = (
        "repeat: 1",
        "then: [{rounds: 1}]",
        "removed: {examples: []}",
        "central: shuffled",
        "twins: 2",
        "coins: {law: owen}",
        "batches: shared",
        "freeze: [a]",
        "observe: {test: {rows: 5}}",
    )
    for change in changes:
        assert parse_scenario(f"{{{common}, {change}}}").id != parse_scenario(f"{{{common}}}").id
    nested = build("sampler", {"kind": "dropout", "sampler": {"kind": "everyone"}})
    assert dump(nested, for_id=True) == dump(nested)


def test_the_id_changes_with_the_version_of_results(monkeypatch: pytest.MonkeyPatch) -> None:
    before = parse_scenario(SMALL).id
    monkeypatch.setattr("fedmem.scenario.scenario.RESULTS_VERSION", 10**6)
    assert parse_scenario(SMALL).id != before


finite = st.floats(min_value=1e-9, max_value=1e9)


@settings(max_examples=60, deadline=None)
@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    seed=st.integers(0, 2**63 - 1),
    runs=st.one_of(st.just(1), st.integers(1, 40).map(lambda half: 2 * half)),
    rounds=st.integers(1, 50),
    clients=st.integers(1, 50),
    lr=finite,
    hidden=st.lists(st.integers(1, 99), max_size=3),
    alpha=finite,
    every=st.integers(1, 50),
    rate=st.floats(min_value=1e-6, max_value=1),
    failed=st.floats(min_value=0, max_value=0.99),
    label=st.from_regex(r"[A-Za-z0-9_]{1,20}", fullmatch=True),
    more=st.booleans(),
)
def test_any_scenario_is_equal_after_writing_and_reading(
    name: str,
    seed: int,
    runs: int,
    rounds: int,
    clients: int,
    lr: float,
    hidden: int,
    alpha: float,
    every: int,
    rate: float,
    failed: float,
    label: str,
    more: bool,
) -> None:
    chosen: dict[str, Any] = {
        "dataset": {"kind": "synthetic"},
        "partition": {"kind": "dirichlet", "alpha": alpha},
        "model": {"kind": "mlp", "hidden": hidden},
        "sampler": {"kind": "poisson", "rate": rate},
        "client": {"kind": "sgd", "lr": lr},
        "injections": [{"kind": "typical", "label": label}] * more,
        "observe": {"every": min(every, rounds)},
        "tolerate": {"max_failed_share": failed},
        "save": {"params": more},
    }
    scenario = Scenario(name=name, seed=seed, runs=runs, rounds=rounds, clients=clients, **chosen)
    again = parse_scenario(scenario.to_yaml(), "other")
    assert again == scenario
    assert again.id == scenario.id
    assert hash(again) == hash(scenario)
    assert again.to_yaml() == scenario.to_yaml()


def test_strategies_of_others_come_back_the_same() -> None:
    scenario = parse_scenario(SMALL, overrides=["strategy={kind: 'flwr.serverapp.strategy:FedProx', proximal_mu: 0.1}"])
    assert parse_scenario(scenario.to_yaml()) == scenario
    assert scenario.dump()["strategy"] == {"kind": "flwr.serverapp.strategy:FedProx", "proximal_mu": 0.1}


# Overrides


# Problems


@pytest.mark.parametrize("stem", ["..", "a b", "-x", ".hidden", "ä", "x" * 101])
def test_the_name_is_safe_as_a_folder(stem: str) -> None:
    assert [problem.path for problem in problems(SMALL + f"name: '{stem}'\n")] == ["name"]
    with pytest.raises(ScenarioError, match="letters, digits"):
        parse_scenario(SMALL, stem)


# Observed rounds


@pytest.mark.parametrize(
    ("observe", "rounds"),
    [
        ("{}", (0, 6)),
        ("{every: 6}", (0, 6)),
        ("{every: 4}", (0, 4, 6)),
        ("{every: 1}", (0, 1, 2, 3, 4, 5, 6)),
        ("{rounds: [5, 1, 5, 0]}", (0, 1, 5, 6)),
        ("{every: 3, rounds: [4]}", (0, 3, 4, 6)),
        ("{rounds: [-1, -2, -6, -7]}", (0, 1, 5, 6)),
    ],
)
def test_observed_rounds_are_sorted_and_hold_first_and_last(observe: str, rounds: tuple[int, ...]) -> None:
    assert parse_scenario(SMALL + f"observe: {observe}\n").observed_rounds == rounds


def test_rounds_from_the_end_are_resolved_when_read() -> None:
    near_the_end = parse_scenario(SMALL + "observe: {rounds: [-3, -2]}\n")
    by_number = parse_scenario(SMALL + "observe: {rounds: [4, 5]}\n")
    assert near_the_end.observe.rounds == (4, 5)
    assert near_the_end.id == by_number.id
    assert near_the_end.dump()["observe"]["rounds"] == [4, 5]
    shorter = parse_scenario(SMALL + "observe: {rounds: [-3, -2]}\n", overrides=["rounds=4"])
    assert shorter.observed_rounds == (0, 2, 3, 4)
    assert type(near_the_end)(**dict(near_the_end) | {"observe": {"rounds": [-2]}}).observe.rounds == (5,)


# YAML
