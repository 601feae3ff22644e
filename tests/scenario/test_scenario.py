"""Reading, overriding, freezing and naming scenarios."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedmem.errors import Problem, ScenarioError
from fedmem.injections.mislabelled import Mislabelled
from fedmem.partitions.dirichlet import Dirichlet
from fedmem.scenario import yaml_source
from fedmem.scenario.loading import load_scenario, parse_scenario
from fedmem.scenario.scenario import Scenario
from tests.narrowing import instance

QUICKSTART = Path(__file__).parents[2] / "scenarios" / "quickstart.yaml"

SMALL = """\
runs: 4
rounds: 6
clients: 3
dataset: {kind: synthetic}
model: {kind: mlp, hidden: [8]}
client:
  kind: sgd
  lr: 0.1
strategy: {kind: fedadam, server_lr: 0.1}
injections:
  - {kind: typical, per_client: 1}
estimators:
  - kind: membership
    attack: {kind: loss_threshold}
"""


def problems(text: str = SMALL, *overrides: str) -> tuple[Problem, ...]:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, "small", overrides)
    return caught.value.problems


def test_the_quickstart_is_what_its_file_says() -> None:
    scenario = load_scenario(QUICKSTART)
    assert (scenario.name, scenario.runs, scenario.rounds, scenario.clients) == ("quickstart", 32, 40, 20)
    assert scenario.observed_rounds == (0, 5, 10, 15, 20, 25, 30, 35, 36, 37, 38, 39, 40)
    assert instance(scenario.partition, Dirichlet).alpha == 0.5
    assert [injection.name for injection in scenario.injections] == ["random_pattern", "mislabelled", "typical"]
    assert QUICKSTART.read_text().startswith("# fedmem run scenarios/quickstart.yaml\n")


def test_defaults_are_as_documented() -> None:
    scenario = parse_scenario("{rounds: 2, clients: 3, dataset: {kind: synthetic}, model: {kind: mlp}}", "x")
    assert scenario.dump() | {"dataset": None, "model": None} == {
        "name": "x",
        "seed": 0,
        "runs": 1,
        "rounds": 2,
        "clients": 3,
        "dataset": None,
        "partition": {"kind": "iid", "min_rows": 1},
        "model": None,
        "initial_weights": "shared",
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
        "leave_out": {"clients": 0},
        "observe": {"every": None, "rounds": [], "levels": ["local", "global"], "sums": []},
        "probes": [],
        "estimators": [],
        "bootstrap": 1000,
        "privacy": {"delta": 1e-5, "target_epsilon": None, "adjacency": None},
        "tolerate": {"max_failed_share": 0.0, "not_finite": False},
        "save": {"params": False},
        "speed": {
            "engine": "lockstep",
            "executor": "auto",
            "server": "auto",
            "threads": 1,
            "workers": "auto",
            "shard": 16,
            "device": "cpu",
            "memory": None,
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


def test_the_id_follows_what_decides_results_and_not_what_decides_speed() -> None:
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
def test_what_is_dumped_loads_to_the_same(
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


def test_later_overrides_win() -> None:
    assert parse_scenario(SMALL, overrides=["seed=1", "seed=2"]).seed == 2


def test_another_kind_drops_what_it_does_not_know_and_keeps_what_it_does() -> None:
    assert parse_scenario(SMALL, overrides=["strategy.kind=fedmedian"]).dump()["strategy"] == {"kind": "fedmedian"}
    text = SMALL.replace("kind: typical, per_client: 1", "kind: random_pattern, per_client: 3, values: uniform")
    scenario = parse_scenario(text, overrides=["injections[0].kind=mislabelled"])
    assert instance(scenario.injections[0], Mislabelled).per_client == 3


def test_another_kind_inside_a_component_drops_too() -> None:
    text = SMALL.replace("runs: 4", "runs: 8").replace("kind: loss_threshold", "kind: lira, variance: pooled")
    scenario = parse_scenario(text, overrides=["estimators[0].attack.kind=loss_threshold"])
    assert scenario.dump()["estimators"][0]["attack"] == {"kind": "loss_threshold"}


def test_what_was_set_for_the_old_kind_is_not_dropped_silently() -> None:
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


def test_the_file_is_blamed_for_the_rest_of_an_overridden_component() -> None:
    assert problems(SMALL.replace("lr: 0.1", "lr: -1"), "client.steps=4")[0].line == 8


# Problems


def test_all_problems_are_told_at_once_with_their_lines() -> None:
    text = (
        SMALL.replace("runs: 4", "runs: 5").replace("  lr: 0.1", "  lr: fast").replace("kind: typical", "kind: tipical")
    )
    found = problems(text + "seeds: 3\nobserve: {rounds: [99]}\n")
    assert [(problem.path, problem.line) for problem in found] == [
        ("runs", 1),
        ("client.lr", 8),
        ("injections[0].kind", 11),
        ("seeds", 15),
        ("observe.rounds[0]", 16),
    ]


def test_a_mistake_in_one_field_does_not_make_others_wrong() -> None:
    # The cohort cannot be compared with a number of clients that is not known.
    text = SMALL.replace("clients: 3", "clients: three") + "sampler: {kind: uniform, size: 9}\n"
    assert [problem.path for problem in problems(text)] == ["clients"]


def test_problems_found_later_get_their_line() -> None:
    scenario = parse_scenario(SMALL, "small.yaml", ["client.lr=0.3"])
    line = scenario.place(Problem(path="injections[0].per_client", message="too many"))
    assert (line.source, line.line) == ("small.yaml", 11)
    assert scenario.locate("client.lr") == ("--set client.lr=0.3", None)
    assert scenario.locate("injections") == ("small.yaml", 10)
    assert scenario.locate("population") == ("small.yaml", None)
    assert scenario.locate("") == ("small.yaml", None)
    known = Problem(path="runs", message="x", source="other", line=3)
    assert scenario.place(known) is known


@pytest.mark.parametrize("stem", ["..", "a b", "-x", ".hidden", "ä", "x" * 101])
def test_the_name_is_safe_as_a_folder(stem: str) -> None:
    assert [problem.path for problem in problems(SMALL + f"name: '{stem}'\n")] == ["name"]
    with pytest.raises(ScenarioError, match="letters, digits"):
        parse_scenario(SMALL, stem)


def test_the_name_is_the_stem_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "my-study.v2.yaml").write_text(SMALL)
    assert load_scenario(tmp_path / "my-study.v2.yaml").name == "my-study.v2"


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


def test_yaml_values_follow_the_core_schema() -> None:
    read = yaml_source.read_text("[1e-3, no, on, 0x10, 1:30, 2020-01-01, '7', ~, true, .inf, 010, -5, 1., '']", "x")
    assert read.value == [0.001, "no", "on", 16, "1:30", "2020-01-01", "7", None, True, math.inf, 10, -5, 1.0, ""]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: [1", 1, "not valid YAML"),
        ("a: 1\nb:\n\t- 2", 3, "not valid YAML"),
        ("a: 1\nb: 2\na: 3", 3, "first in line 1"),
        ("a: {b: 1, b: 2}", 1, "a.b: the key is given twice"),
        ("a: &x [1]\nb: *x", 2, "write the value out"),
        ("a: !!python/object/apply:os.system [ls]", 1, "not allowed"),
        ("a: !!int 3", 1, "not allowed"),
        ("a: 1\n---\na: 2", 2, "second document"),
        ("", None, "empty"),
        ("# nothing\n", None, "empty"),
        ("[" * 30 + "]" * 30, 1, "levels deep"),
        ("[" * 5000, 1, "levels deep"),
        ("a: " + "9" * 500, 1, "too long"),
        ("? [1, 2]\n: 3", 1, "plain words"),
        ("a: \x00", None, "not valid YAML"),
    ],
)
def test_yaml_that_is_not_what_it_looks_like_is_refused(text: str, line: int | None, says: str) -> None:
    found = yaml_source.read_text(text, "x").problems
    assert found[0].line == line
    assert says in str(found[0])


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("ä: 1".encode("latin-1"))
    (tmp_path / "huge.yaml").write_bytes(b"a" * (yaml_source.MAX_BYTES + 1))
    for name, says in (
        ("latin.yaml", "UTF-8"),
        ("huge.yaml", "more than 1000000 bytes"),
        ("no.yaml", "no such file"),
        ("", "folder"),
    ):
        assert says in yaml_source.read_file(tmp_path / name).problems[0].message


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**12), 10**12), st.floats(allow_nan=False), st.text(max_size=20)
)
plain = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)),
)


@settings(max_examples=200, deadline=None)
@given(plain)
def test_whatever_is_written_reads_back(value: object) -> None:
    assert yaml_source.read_text(yaml_source.write([value]), "x").value == [value]
    assert yaml_source.read_value(yaml_source.write_flow([value])) == [value]


@given(st.lists(st.one_of(st.integers(0, 99), st.from_regex(r"[a-z_]{1,9}", fullmatch=True)), min_size=1, max_size=5))
def test_places_are_written_and_read_alike(parts: list[int | str]) -> None:
    place = ("a", *parts)
    assert yaml_source.place_parts(yaml_source.place_text(place)) == place
