"""A part of the user's that fails must fail the run, by name: every family, method and way of failing.

Each bad part goes through `fedmem.run`; some through the command, for exit codes, output and `--debug`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedmem.errors import ScenarioError
from fedmem.execution import memory_budget
from fedmem.execution.many_scenarios import run_all
from fedmem.execution.plan import plan
from fedmem.execution.run import run
from fedmem.guards.guarding import PartError
from fedmem.results.folder import finish_time
from tests import bad_parts
from tests.bad_parts import CAUSES
from tests.forked import Ended, fedmem
from tests.guards.guarding_helpers import SMALL, message_of, with_part
from tests.narrowing import present
from tests.tiny import tiny

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
def test_exception_in_a_part_fails_the_run_with_its_name(
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
def test_failing_rule_gives_equal_errors_on_both_paths(how: str, said: str, server: str, tmp_path: Path) -> None:
    changes = with_part("strategy", "BadStrategy", at="rule", how=how) | {"speed": {"server": server}}
    text = message_of(tmp_path, changes)
    assert text.startswith("round 1")
    assert "strategy tests.bad_parts:BadStrategy failed in" in text
    assert said in text


@pytest.mark.parametrize(("method", "how"), [("state", "none"), ("state", "apart"), ("payload", "number")])
def test_rule_state_and_payload_must_be_arrays_of_its_runs(method: str, how: str, tmp_path: Path) -> None:
    text = message_of(tmp_path, with_part("strategy", "BadStrategy", at=method, how=how))
    assert f"strategy tests.bad_parts:BadStrategy failed in {method}: it" in text


def test_strategy_that_catches_a_guards_error_still_fails(tmp_path: Path) -> None:
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
    changes = with_part("client", "BadClient", at=method, how=how) | {"speed": {"executor": executor, "workers": 1}}
    text = message_of(tmp_path, changes)
    assert text.startswith("round 1: 3 of 3 clients failed, first client 0: ")
    assert said in text


@pytest.mark.parametrize("executor", ["one_by_one", "stacked"])
@pytest.mark.parametrize(("rows", "start"), [(8, "round 1: "), (100, "round 0, level global: model ")])
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
    most = int(present(re.search(r"at most (\d+)", str(caught.value)))[1])
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
    measured = "probes: [{kind: utility}]\n"  # without it, a warning comes first
    done = command(tmp_path, "strategy: {kind: 'tests.bad_parts:BadStrategy', how: exit}\n" + measured)
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
