"""A part of the user's that fails must fail the run, by name: every family, method and way of failing.

Each bad part goes through `fedmem.run`; some through the command, for exit codes, output and `--debug`.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from fedmem.errors import RunError, ScenarioError
from fedmem.execution import memory_budget
from fedmem.execution.many_scenarios import run_all
from fedmem.execution.plan import plan
from fedmem.execution.run import run
from fedmem.guards.guarding import PartError
from fedmem.results.folder import finish_time
from tests import bad_parts
from tests.bad_parts import CAUSES
from tests.forked import Ended, fedmem
from tests.tiny import tiny

SMALL: dict[str, Any] = {
    "runs": 2,
    "rounds": 2,
    "clients": 3,
    "population": 5,
    "references": 20,
    "bootstrap": 20,
    "injections": [{"kind": "random_pattern", "per_client": 1}],
    "model": {"kind": "tests.bad_parts:BadModel", "at": "nowhere"},
    "sampler": {"kind": "everyone"},
    "client": {"kind": "sgd", "batch_size": 8},
    "observe": {},
}

PLACES = {
    "dataset": "dataset",
    "partition": "partition",
    "model": "model",
    "injection": "injections",
    "sampler": "sampler",
    "client": "client",
    "defence": "defences",
    "strategy": "strategy",
    "probe": "probes",
    "estimator": "estimators",
}
"""Family -> its field in a scenario."""


def with_part(family: str, kind: str, **fields: Any) -> dict[str, Any]:
    part = {"kind": f"tests.bad_parts:{kind}", **fields}
    if kind == "BadMembership":
        return {"runs": 2, "estimators": [{"kind": "membership", "attack": part}]}
    if kind == "BadReconstruction":
        return {"probes": [{"kind": "leakage", "attack": part}]}
    place = PLACES[family]
    return {place: [part] if place.endswith("s") else part}


def message_of(tmp_path: Path, changes: dict[str, Any]) -> str:
    """The error that ends a run: one that says no more than twenty lines, and leaves no run behind."""
    with pytest.raises(RunError) as caught:
        run(tiny(**{**SMALL, **changes}), out=tmp_path)
    assert caught.value.exit_code == 1
    assert not list(tmp_path.glob("*/*/manifest.json"))
    text = str(caught.value)
    assert len(text.splitlines()) <= 20
    assert len(text) < 2500
    return text


RAISING = [
    ("dataset", "BadDataset", "load"),
    ("partition", "BadPartition", "assign"),
    ("partition", "BadShift", "shift"),
    ("model", "BadModel", "build"),
    ("model", "BadModel", "forward"),
    ("injection", "BadInjection", "reserve_rows"),
    ("injection", "BadInjection", "total_copies"),
    ("injection", "BadInjection", "plan"),
    ("injection", "BadInjection", "references"),
    ("sampler", "BadSampler", "reachable_clients"),
    ("sampler", "BadSampler", "cohort"),
    ("sampler", "BadSampler", "probabilities"),
    ("client", "BadClient", "batches"),
    ("client", "BadClient", "init"),
    ("client", "BadClient", "step"),
    ("client", "BadClient", "final"),
    ("defence", "BadDefence", "apply"),
    ("strategy", "BadStrategy", "make"),
    ("strategy", "BadStrategy", "state"),
    ("strategy", "BadStrategy", "payload"),
    ("strategy", "BadStrategy", "rule"),
    ("probe", "BadProbe", "observe"),
    ("probe", "BadProbe", "summarise"),
    ("probe", "SilentProbe", "summarise"),
    ("estimator", "BadEstimator", "estimate"),
    ("estimator", "BadEstimator", "tests"),
    ("attack", "BadMembership", "scores"),
    ("attack", "BadReconstruction", "reconstruct"),
]

SERVER = {("strategy", "make"): {"speed": {"server": "messages"}}}
"""What makes a scenario call a method at all."""


def expect(text: str, family: str, kind: str, method: str, cause: str) -> None:
    """The message names the part, its method, the cause, and a line of its file."""
    name = "Net" if method == "forward" else kind
    assert f"{family} tests.bad_parts:{name}" in text
    assert method in text
    assert cause in text
    assert re.search(r"tests/bad_parts\.py:\d+", text), text


@pytest.mark.parametrize("how", ["raise", "exit"])
@pytest.mark.parametrize(("family", "kind", "method"), RAISING)
def test_what_a_part_raises_fails_the_run_by_its_name(
    family: str, kind: str, method: str, how: str, tmp_path: Path
) -> None:
    changes = with_part(family, kind, at=method, how=how) | SERVER.get((family, method), {})
    text = message_of(tmp_path, changes)
    expect(text, family, kind, method, CAUSES[how])


OTHERS = [how for how in CAUSES if how not in ("raise", "exit")]


@pytest.mark.parametrize("how", OTHERS)
@pytest.mark.parametrize(
    ("family", "kind", "method"),
    [
        ("sampler", "BadSampler", "cohort"),
        ("client", "BadClient", "step"),
        ("strategy", "BadStrategy", "rule"),
        ("probe", "BadProbe", "observe"),
    ],
)
def test_every_kind_of_exception_fails_the_run(family: str, kind: str, method: str, how: str, tmp_path: Path) -> None:
    text = message_of(tmp_path, with_part(family, kind, at=method, how=how))
    expect(text, family, kind, method, CAUSES[how])


RETURNING = [
    *(("dataset", "BadDataset", "load", how, said) for how, said in {
        "none": "it returned nothing",
        "tuple": "it returned tuple",
        "high": "train.targets is 4 at row 3, should be 0 to 3",
        "low": "train.targets is -1 at row 3, should be 0 to 3",
        "floats": "train.targets is float64 of shape",
        "nan": "train.inputs has 64 values that are not finite, the first nan at row 5",
        "double": "train.inputs is float64 of shape",
        "empty": "no training rows",
        "narrow": "inputs of train have shape",
        "classes": "num_classes is 2.5",
        "owners": "natural is int64 of shape (3,)",
    }.items()),
    *(("partition", "BadPartition", "assign", how, said) for how, said in {
        "none": "it returned nothing",
        "flat": "it returned int",
        "floats": "the rows of client 0 are float64",
        "masks": "the rows of client 0 are bool",
    }.items()),
    *(("partition", "BadShift", "shift", how, said) for how, said in {
        "none": "it returned nothing",
        "shape": "it returned float32 of shape",
        "nan": "not finite",
        "range": "outside of [0, 1]",
        "double": "it returned float64 of shape",
    }.items()),
    *(("model", "BadModel", "build", how, said) for how, said in {
        "none": "it returned nothing, should be a torch.nn.Module",
        "bare": "no parameters",
        "nan": "should be floating numbers, all of them finite",
    }.items()),
    *(("model", "BadModel", "forward", how, said) for how, said in {
        "none": "it returned nothing, should be floating logits of shape (2, 4)",
        "wide": "it returned float32 of shape (2, 8)",
        "flat": "it returned float32 of shape (4,)",
        "whole": "it returned int64 of shape (2, 4)",
    }.items()),
    *(("injection", "BadInjection", method, how, said) for method, how, said in [
        ("reserve_rows", "negative", "should be a whole number, 0 or more"),
        ("reserve_rows", "none", "it returned None"),
        ("total_copies", "fraction", "should be a whole number, 0 or more"),
        ("plan", "none", "it returned nothing"),
        ("plan", "owner", "owner is 99 at row 0, should be -1 to 2"),
        ("plan", "copies", "copies is 0 at row 0"),
        ("plan", "nan", "examples.inputs has 64 values that are not finite"),
        ("plan", "label", "examples.targets is 99 at row 0"),
        ("plan", "narrow", "examples.inputs has shape"),
        ("plan", "short", "owner is int32 of shape (1,)"),
        ("plan", "owners", "owners is 44 at row 0"),
        ("references", "none", "it returned nothing"),
        ("references", "few", "it returned 19 references"),
        ("references", "rows", "inputs are float32 of shape"),
    ]),
    *(("sampler", "BadSampler", "cohort", how, said) for how, said in {
        "none": "it returned nothing, should be whole numbers of shape (n,)",
        "negative": "it returned client -1, should be numbers from 0 to 2",
        "twice": "it returned client 0 twice",
        "mask": "it returned bool of shape (3,)",
        "outside": "it returned client 3, should be numbers from 0 to 2",
        "floats": "it returned float64 of shape (2,)",
        "unsorted": "it returned client 1 before 0",
        "table": "it returned int64 of shape (1, 2)",
        "text": "it returned str",
        "ragged": "it returned list, should be whole numbers",
    }.items()),
    ("sampler", "BadSampler", "reachable_clients", "ones", "it returned float64 of shape (3,), should be bool"),
    ("sampler", "BadSampler", "reachable_clients", "short", "it returned bool of shape (2,)"),
    ("sampler", "BadSampler", "probabilities", "above", "it returned 1.5 for client 0"),
    ("sampler", "BadSampler", "probabilities", "nan", "it returned nan for client 0"),
    ("sampler", "BadSampler", "probabilities", "zeros", "probability 0 for client 0, which the sampler has picked"),
    *(("client", "BadClient", method, how, said) for method, how, said in [
        ("batches", "none", "it returned nothing"),
        ("batches", "flat", "it returned int64 of shape (8,)"),
        ("batches", "floats", "it returned float64 of shape"),
        ("batches", "outside", "it returned position 1000000"),
        ("batches", "below", "it returned position -2"),
        ("final", "none", "it returned nothing, should be fedmem.contracts.client.Outcome"),
        ("final", "shape", "sent['layer.weight'] is float32 of shape (1, 64)"),
        ("final", "whole", "sent['layer.weight'] is int64"),
        ("final", "double", "sent['layer.weight'] is float64"),
        ("final", "fewer", "sent lacks parameter 'layer.weight'"),
        ("final", "more", "sent has an unknown parameter 'more'"),
        ("final", "kept", "kept['layer.weight'] is float32 of shape (1, 64)"),
        ("final", "report", "report['own'] is float32 of shape (3,)"),
        ("final", "remember", "memory['own'] is int"),
    ]),
    *(("defence", "BadDefence", "apply", how, said) for how, said in {
        "shape": "the update['layer.weight'] is float32 of shape (2, 4, 64)",
        "double": "the update['layer.weight'] is float64",
        "fewer": "the update lacks parameter 'layer.bias'",
    }.items()),
    *(("probe", "BadProbe", "observe", how, said) for how, said in {
        "none": "TypeError: 'NoneType' object is not iterable",
        "later": "ValueError: on purpose",
        "text": "it returned str, should be pairs",
        "nobody": "it returned a reading about no transition",
        "stranger": "it returned a reading about run 77",
        "number": "it returned float, should be a fedmem.contracts.measurement.Reading",
        "word": "value of the reading 'own' is 'high', should be a number",
        "reading": "it returned Reading, should be pairs",
        "undeclared": "the measure 'other', which it does not declare (it declares own)",
    }.items()),
    *(("probe", "BadProbe", "summarise", how, said) for how, said in {
        "none": "TypeError: 'NoneType' object is not iterable",
        "text": "it returned str, should be fedmem.contracts.measurement.Measurement",
        "later": "ValueError: on purpose",
    }.items()),
    *(("estimator", "BadEstimator", "estimate", how, said) for how, said in {
        "none": "TypeError: 'NoneType' object is not iterable",
        "later": "ValueError: on purpose",
        "text": "it returned str, should be fedmem.contracts.estimator.Estimate",
        "short": "cells of 'memorisation' are float64 of shape (1, ",
        "word": "value of 'memorisation' is 'high'",
        "undeclared": "the measure 'other', which it does not declare (it declares memorisation, own)",
        "single": "per_example of 'memorisation' is float64 of shape (99,)",
    }.items()),
    ("estimator", "BadEstimator", "tests", "none", "TypeError: 'NoneType' object is not iterable"),
    ("estimator", "BadEstimator", "tests", "run", "should be pairs of a run (-1 to 1) and a reading"),
    ("estimator", "BadEstimator", "tests", "untested", "the measure 'other', which it does not declare"),
    ("estimator", "BadEstimator", "tests", "reading", "should be pairs of a run"),
    ("attack", "BadMembership", "scores", "none", "it returned nothing"),
    ("attack", "BadMembership", "scores", "short", "it returned float64 of shape"),
    ("attack", "BadMembership", "scores", "whole", "it returned int64 of shape"),
    *(("attack", "BadReconstruction", "reconstruct", how, said) for how, said in {
        "none": "TypeError: 'NoneType' object is not iterable",
        "fewer": "reconstructions, should be one for each of",
        "arrays": "it returned float32 of shape",
        "narrow": "inputs are float32 of shape",
        "labels": "labels are int64 of shape (0,)",
        "word": "distance is 'far'",
    }.items()),
]  # fmt: skip


@pytest.mark.parametrize(("family", "kind", "method", "how", "said"), RETURNING)
def test_what_a_part_returns_wrongly_fails_the_run(
    family: str, kind: str, method: str, how: str, said: str, tmp_path: Path
) -> None:
    text = message_of(tmp_path, with_part(family, kind, at=method, how=how))
    name = "Net" if method == "forward" else kind
    assert f"{family} tests.bad_parts:{name}" in text
    assert method in text
    assert said in text


@pytest.mark.parametrize("server", ["messages", "rule"])
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raise", "ValueError: on purpose"),
        ("exit", "SystemExit: 0"),
        ("none", ""),
        ("model", ""),
        ("longer", "has shape"),
        ("shape", "has shape"),
        ("scalar", "has shape"),
        ("whole", "is torch.int64, should be torch.float32"),
        ("nan", "not finite: "),
        ("fewer", "'layer.weight' is missing"),
        ("array", "'layer.weight' is"),
    ],
)
def test_a_rule_fails_alike_on_both_paths(how: str, said: str, server: str, tmp_path: Path) -> None:
    changes = with_part("strategy", "BadStrategy", at="rule", how=how) | {"speed": {"server": server}}
    text = message_of(tmp_path, changes)
    assert text.startswith("round 1")
    assert "strategy tests.bad_parts:BadStrategy failed in" in text
    assert said in text


@pytest.mark.parametrize(("method", "how"), [("state", "none"), ("state", "apart"), ("payload", "number")])
def test_what_a_rule_remembers_and_offers_is_arrays_of_its_runs(method: str, how: str, tmp_path: Path) -> None:
    text = message_of(tmp_path, with_part("strategy", "BadStrategy", at=method, how=how))
    assert f"strategy tests.bad_parts:BadStrategy failed in {method}: it" in text


def test_a_strategy_that_catches_what_was_found_out_does_not_go_on(tmp_path: Path) -> None:
    text = message_of(tmp_path, with_part("strategy", "SwallowingMaker", how="nan") | {"speed": {"server": "messages"}})
    assert "round 1, run 0: strategy tests.bad_parts:SwallowingMaker failed in" in text
    assert "not finite" in text


@pytest.mark.parametrize("executor", ["one_by_one", "stacked"])
@pytest.mark.parametrize(
    ("method", "how", "said"),
    [
        ("init", "exit", "SystemExit: 0 (in init of client"),
        ("init", "none", "(in step of client"),
        ("step", "exit", "SystemExit: 0 (in step of client"),
        ("step", "rows", "RuntimeError: "),
        ("final", "raise", "ValueError: on purpose (in final of client"),
        ("final", "text", "it returned str, should be fedmem.contracts.client.Outcome (in final of client"),
        ("final", "shape", "sent['layer.weight'] is float32 of shape (1, 64), should be float32 of shape (4, 64)"),
    ],
)
def test_executors_say_the_same_of_a_client(method: str, how: str, said: str, executor: str, tmp_path: Path) -> None:
    changes = with_part("client", "BadClient", at=method, how=how) | {"speed": {"executor": executor}}
    text = message_of(tmp_path, changes)
    assert text.startswith("round 1: 3 of 3 clients failed, first client 0: ")
    assert said in text


@pytest.mark.parametrize("executor", ["one_by_one", "stacked"])
@pytest.mark.parametrize(("rows", "start"), [(8, "round 1: "), (200, "round 0, level global: model ")])
def test_a_model_that_fails_later_is_named_for_it(rows: int, start: str, executor: str, tmp_path: Path) -> None:
    """In batches of eight while clients train, in all rows of the test set while models are looked at."""
    model = {"kind": "tests.bad_parts:BadModel", "at": "forward", "how": "raise", "rows": rows}
    text = message_of(tmp_path, {"model": model, "speed": {"executor": executor, "workers": 2}})
    assert text.startswith(start)
    assert "model tests.bad_parts:Net" in text
    assert "forward" in text
    assert re.search(r"tests/bad_parts\.py:\d+", text)


@pytest.mark.parametrize("how", ["raise", "exit", "none", "shape"])
def test_clients_in_other_processes_fail_by_name_as_well(how: str, tmp_path: Path) -> None:
    speed = {"executor": "one_by_one", "workers": 2}
    method = "step" if how in ("raise", "exit") else "final"
    text = message_of(tmp_path, with_part("client", "BadClient", at=method, how=how) | {"speed": speed})
    assert text.startswith("round 1: 3 of 3 clients failed, first client 0: ")
    assert f"in {method} of client tests.bad_parts:BadClient" in text
    assert "tests/bad_parts.py:" in text


@pytest.mark.parametrize(
    ("family", "kind", "method"), [("strategy", "BadStrategy", "rule"), ("probe", "BadProbe", "observe")]
)
def test_parts_in_shards_of_other_processes_fail_by_name(family: str, kind: str, method: str, tmp_path: Path) -> None:
    changes = with_part(family, kind, at=method, how="exit") | {"speed": {"workers": 2, "shard": 1}}
    expect(message_of(tmp_path, changes), family, kind, method, "SystemExit: 0")


def test_a_part_that_exits_takes_no_other_scenario_with_it(tmp_path: Path) -> None:
    good, bad = (
        tiny(**{**SMALL, **with_part("probe", "BadProbe", at=at, how="exit")}) for at in ("nowhere", "observe")
    )
    outcomes = run_all([bad, good], out=tmp_path, jobs=1)
    assert isinstance(outcomes[0].error, PartError)
    assert "probe tests.bad_parts:BadProbe failed in observe: SystemExit: 0" in str(outcomes[0].error)
    assert outcomes[1].error is None
    assert finish_time(outcomes[1].folder) is not None


@pytest.mark.parametrize(
    "speed",
    [
        {"executor": "one_by_one", "workers": 1},
        {"executor": "stacked", "workers": 1},
        {"executor": "one_by_one", "workers": 2},
        {"executor": "stacked", "workers": 2, "shard": 1},
    ],
    ids=["one_by_one", "stacked", "spread", "shards"],
)
def test_a_client_whose_step_hangs_is_stopped(speed: dict[str, Any], tmp_path: Path) -> None:
    changes = with_part("client", "BadClient", how="hang") | {"speed": {**speed, "seconds_per_client": 0.3}}
    begun = time.monotonic()
    text = message_of(tmp_path, changes)
    assert time.monotonic() - begun < 60
    assert "client tests.bad_parts:BadClient failed in its steps: they took longer than" in text
    assert "speed.seconds_per_client" in text
    assert re.search(r"bad_parts\.py:\d+", text)


def test_how_long_a_client_may_take_is_no_part_of_the_id_of_a_run() -> None:
    assert tiny(speed={"seconds_per_client": 5.0}).id == tiny().id


@pytest.mark.parametrize("how", ["raise", "exit"])
def test_a_part_that_no_guard_is_around_is_named_as_well(how: str, tmp_path: Path) -> None:
    """How often a probe reads is a property, which is asked for in many places."""
    text = message_of(tmp_path, with_part("probe", "BadProperty", at="every", how=how))
    assert text.startswith(f"part tests.bad_parts:BadProperty failed in every: {CAUSES[how]} (tests/bad_parts.py:")


def test_ctrl_c_in_a_part_stays_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bad_parts.ACTS, "raise", lambda: bad_parts.throw(KeyboardInterrupt()))
    for family, kind, method in (("sampler", "BadSampler", "cohort"), ("client", "BadClient", "step")):
        with pytest.raises(KeyboardInterrupt):
            run(tiny(**{**SMALL, **with_part(family, kind, at=method)}), out=tmp_path)


def test_errors_of_parts_survive_the_way_between_processes() -> None:
    import pickle

    error = PartError("sampler x:Y", "cohort", "ValueError: no", at="x.py:3", place={"round": 2, "run": None})
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (PartError, "round 2: sampler x:Y failed in cohort: ValueError: no (x.py:3)")


@pytest.mark.parametrize("how", ["exit", "key"])
def test_a_part_that_cannot_be_made_is_a_mistake_in_the_scenario(how: str) -> None:
    with pytest.raises(
        ScenarioError, match=rf"sampler: .*BadInit cannot be made: {CAUSES[how]} \(tests/bad_parts\.py:"
    ):
        tiny(**with_part("sampler", "BadInit", how=how))


# --- batches that cannot fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["one_by_one", "stacked"])
def test_a_batch_that_cannot_fit_into_memory_is_refused(
    executor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_budget, "memory_bytes", lambda device: 64e6)
    for check in (lambda scenario: run(scenario, out=tmp_path), plan):
        with pytest.raises(ScenarioError, match=r"client\.batch_size: a batch of \d+ rows takes .* MB") as caught:
            check(tiny(client={"kind": "sgd", "batch_size": 10**7}, speed={"executor": executor}))
    most = int(re.search(r"at most (\d+)", str(caught.value))[1])  # type: ignore[index]
    assert 0 < most < 10**7
    plan(tiny(client={"kind": "sgd", "batch_size": most}, speed={"executor": executor}))
    with pytest.raises(ScenarioError, match=rf"lower it to at most {most}"):
        plan(tiny(client={"kind": "sgd", "batch_size": most + 1}, speed={"executor": executor}))


# --- the command ---------------------------------------------------------------------------------------------------

SCENARIO = """
rounds: 1
clients: 3
runs: 2
bootstrap: 20
population: 5
dataset: {kind: synthetic}
model: {kind: logistic}
"""


def command(tmp_path: Path, more: str, *options: str) -> Ended:
    file = tmp_path / "small.yaml"
    file.write_text(SCENARIO + more, encoding="utf-8")
    return fedmem("run", str(file), "--out", str(tmp_path / "runs"), *options)


def test_a_rule_that_exits_ends_the_command_with_an_error(tmp_path: Path) -> None:
    done = command(tmp_path, "strategy: {kind: 'tests.bad_parts:BadStrategy', how: exit}\n")
    assert done.returncode == 1
    assert done.stderr.startswith("error: round 1: strategy tests.bad_parts:BadStrategy failed in rule: SystemExit: 0")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 20


def test_with_debug_the_traceback_is_shown(tmp_path: Path) -> None:
    done = command(tmp_path, "probes: [{kind: 'tests.bad_parts:BadProbe', at: summarise}]\n", "--debug", "--quiet")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "bad_parts.py" in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: probe tests.bad_parts:BadProbe failed in summarise: ValueError: on purpose (")


def test_with_debug_the_traceback_of_a_client_is_shown(tmp_path: Path) -> None:
    done = command(tmp_path, "client: {kind: 'tests.bad_parts:BadClient'}\n", "--debug", "--quiet")
    assert done.returncode == 1
    assert "in _done" in done.stderr
    assert "raise error" in done.stderr
