"""The command line: what each command prints, its exit codes, and how fast it answers."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

import fedmem
from fedmem.cli.main import app
from fedmem.contracts.evidence import TrainedBank
from fedmem.contracts.families import FAMILIES
from fedmem.errors import ComponentError, RunError, ScenarioError
from fedmem.reporting.sections import alarms
from fedmem.scenario import catalogue, describe, yaml_source
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.overrides import FAMILY_OF_FIELD
from tests import forked
from tests.forked import Forked
from tests.narrowing import present
from tests.tiny import TINY

SMALL = """\
# fedmem run small.yaml
runs: 2
rounds: 2
clients: 3
dataset: {kind: synthetic, rows: 200, test: 40}
model: {kind: mlp, hidden: [8]}
population: 20
references: 50
bootstrap: 40
injections:
  - {kind: typical, per_client: 1}
estimators:
  - {kind: memorisation}
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def outside(
    *arguments: str, code: str = "from fedmem.cli.main import main; main()"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("module", ["fedmem", "fedmem.cli.main"])
def test_the_command_is_a_module_too(small: Path, module: str) -> None:
    Path("wrong.yaml").write_text(SMALL.replace("rounds: 2", "rounds: 0"))
    words = [sys.executable, "-m", module, "check", "small.yaml", "wrong.yaml"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2
    assert "small.yaml  ok" in done.stdout
    assert "rounds" in done.stderr


# Names and start


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom fedmem.cli.main import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "heavy = {'numpy', 'torch', 'flwr', 'pydantic', 'yaml', 'pandas', 'sklearn', 'scipy', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert outside(code=code).stdout.strip() == "[]"


def test_importing_the_package_imports_nothing_and_its_names_are_there_when_asked() -> None:
    code = "import sys, fedmem\nprint(sorted(m for m in sys.modules if m.startswith('fedmem')))"
    assert outside(code=code).stdout.strip() == "['fedmem']"
    assert dir(fedmem) == sorted(fedmem.__all__)
    with pytest.raises(AttributeError, match="no attribute 'compute'"):
        _ = fedmem.compute


@pytest.mark.parametrize("first", ["run", "measure", "Observed"])
def test_names_are_functions_and_classes_in_whatever_order_they_are_asked_for(first: str) -> None:
    def print_what_is_not_callable() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("fedmem", "strategies")]:
            del sys.modules[name]
        package = importlib.import_module("fedmem")
        getattr(package, first)
        print([name for name in package.__all__ if name[0] != "_" and not callable(getattr(package, name))])

    assert Forked(print_what_is_not_callable).wait().stdout.strip() == "[]"


def test_version() -> None:
    assert call("--version").stdout.strip() == metadata.version("fedmem") == fedmem.__version__


def test_every_command_has_help() -> None:
    for command in ("run", "measure", "report", "runs", "check", "list", "show", "schema", "fetch"):
        done = call(command, "--help")
        assert done.exit_code == 0
        assert "Usage" in done.stdout


# list and show


def test_list_names_every_kind_of_every_family() -> None:
    said = call("list").stdout
    for family in FAMILIES:
        assert re.search(rf"^{family}$", said, re.MULTILINE)
        for kind in catalogue.kinds(family):
            assert re.search(rf"^  {kind} +\S", said, re.MULTILINE)


def test_a_file_that_says_nothing_is_described_by_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "folder", lambda family: tmp_path)
    (tmp_path / "bare.py").write_text(
        'class _Part:\n    """No."""\n\nclass Bare:\n    """Says it.\n\n    More.\n    """\n'
    )
    (tmp_path / "mute.py").write_text("class Mute:\n    pass\n")
    (tmp_path / "told.py").write_text('"""Of the file."""\n\nclass Told:\n    """Of the class."""\n')
    assert [describe.summary("sampler", kind) for kind in ("bare", "mute", "told")] == ["Says it.", "", "Of the file."]


def test_list_of_one_family() -> None:
    assert [line.split()[0] for line in call("list", "sampler").stdout.splitlines()] == list(catalogue.kinds("sampler"))


def test_list_of_an_unknown_family() -> None:
    done = call("list", "samplers")
    assert done.exit_code == 2
    assert "did you mean 'sampler'?" in done.stderr


@pytest.mark.parametrize(
    ("family", "kind", "says"),
    [
        ("client", "sgd", ["momentum", "≥ 0, < 1", "0.1", "whole number or null"]),
        ("strategy", "fedavg", ["size, uniform"]),
        ("probe", "leakage", ["inverting_gradients", "(must be given)", "probes:\n- kind: leakage\n"]),
        ("sampler", "everyone", ["sampler: {kind: everyone}"]),
        ("injection", "typical", ["all of its family have", "- `stop`: last round in which an in"]),
        ("strategy", "flwr.serverapp.strategy:FedProx", ["proximal_mu"]),
    ],
)
def test_show_explains_fields_and_gives_an_example(family: str, kind: str, says: list[str]) -> None:
    done = call("show", family, kind)
    assert done.exit_code == 0, done.stderr
    for text in says:
        assert text in done.stdout


def test_the_example_of_show_is_yaml_that_builds_the_component() -> None:
    line = call("show", "partition", "dirichlet").stdout.strip().splitlines()[-1]
    read = yaml_source.read_text(line, "x").value
    assert catalogue.dump(catalogue.build("partition", read["partition"])) == read["partition"]


EVERY = [(family, kind) for family in FAMILIES for kind in catalogue.kinds(family)]


def wrong_places(text: str) -> set[str]:
    try:
        parse_scenario(text)
    except ScenarioError as error:
        return {problem.path for problem in error.problems}
    return set()


@pytest.mark.parametrize(("family", "kind"), EVERY, ids="/".join)
def test_what_show_prints_can_be_pasted_into_a_scenario(family: str, kind: str) -> None:
    """Its last paragraph is a key of a scenario, whose component is of this kind or holds one."""
    said = call("show", family, kind)
    assert said.exit_code == 0, said.stderr
    read = yaml_source.read_text(said.stdout.rpartition("\n\n")[2], "x")
    assert not read.problems
    ((field, value),) = read.value.items()
    host = FAMILY_OF_FIELD[field]
    (mapping,) = value if field.endswith("s") and isinstance(value, list) else [value]
    assert catalogue.dump(catalogue.build(host, mapping)) == mapping
    while host != family:
        name = next(key for key, inner in mapping.items() if isinstance(inner, dict) and "kind" in inner)
        host, mapping = present(catalogue.nested_family(catalogue.load(host, mapping["kind"]), name)), mapping[name]
    assert mapping == describe.example(family, kind)
    pasted = {**TINY, "runs": 8, "leave_out": {"clients": "all"}, "roster": "pilot", field: value}
    if family == "partition" or kind == "dp_ftrl":  # which counts on the pauses between the turns of a client
        pasted["sampler"] = {"kind": "everyone"}
    if kind in ("canary_clients", "mechanism"):  # which read clients and noise that a private strategy has
        pasted |= {
            "sampler": {"kind": "poisson", "rate": 0.5},
            "strategy": {"kind": "dp_fedavg", "noise_multiplier": 1.0, "expected_cohort_size": 4, "canary_clients": 4},
        }
    if kind == "mechanism":
        pasted["strategy"] = {"kind": "dp_fedavg", "noise_multiplier": 1.0, "expected_cohort_size": 4}
    # only what another part of this one scenario forbids
    sizes = {"sampler.size", "sampler.candidates", "sampler.expected", "strategy.expected_cohort_size"}
    assert wrong_places(json.dumps(pasted)) <= {"client.kind", "strategy"} | sizes


@pytest.mark.parametrize(("family", "kind"), EVERY, ids="/".join)
def test_show_explains_every_field_in_lines_that_fit(family: str, kind: str) -> None:
    said = call("show", family, kind).stdout
    for name, meaning in catalogue.explain(catalogue.load(family, kind)).items():
        assert name in said
        assert " ".join(meaning.split()) in " ".join(said.split())
    assert [line for line in said.splitlines() if len(line) > 100 and not line.startswith((">>>", "..."))] == []


def test_text_is_wrapped_but_examples_and_lists_keep_their_lines() -> None:
    text = "A first line that is\nbroken.\n\n- `one`: item that is longer\n  than this;\n- two.\n\n>>> f(\n...  1)\n2\n"
    assert describe.wrap_docstring(text, 24).splitlines() == [
        "A first line that is",
        "broken.",
        "",
        "- `one`: item that is",
        "  longer than this;",
        "- two.",
        "",
        ">>> f(",
        "...  1)",
        "2",
    ]
    assert describe.wrap_docstring("Fields:\n    lr: a rate\n        of steps.\n    b: c.", 80).splitlines() == [
        "Fields:",
        "    lr: a rate of steps.",
        "    b: c.",
    ]


def test_show_of_an_unknown_kind() -> None:
    done = call("show", "sampler", "unifrom")
    assert done.exit_code == 2
    assert "did you mean 'uniform'?" in done.stderr


# check


def test_check_says_what_will_happen_and_where_every_row_goes(small: Path) -> None:
    done = call("check", "small.yaml", "--set", "runs=4")
    assert done.exit_code == 0, done.stderr
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
    assert "4 runs × 2 rounds × 3 clients = 24 local trainings" in done.stdout
    assert "2 rounds: 0, 2" in done.stdout
    assert "at most 0.50" in done.stdout
    total, *parts = (
        int(number) for number in re.findall(r"(\d+) ?[+=a-z]", present(re.search("rows .*", done.stdout))[0] + " ")
    )
    assert total == sum(parts) == 240
    assert not (small / "runs").exists()


def test_check_counts_what_the_manifest_of_the_run_counts(small: Path) -> None:
    wanted = ["--set", "injections=[{kind: random_pattern}]", "--set", "sampler={kind: poisson, rate: 0.6}"]
    wanted += ["--set", "client={kind: sgd, steps: 7}", "--set", "estimators=[]", "--set", "runs=4"]
    said = " ".join(call("check", "small.yaml", *wanted, "--set", "dataset={kind: digits}").stdout.split())
    done = call("run", "small.yaml", *wanted, "--set", "dataset={kind: digits}", "--quiet")
    assert done.exit_code == 0, done.stderr
    rows = fedmem.read(done.stdout.strip()).manifest["rows"]
    trainings = rows["participation"]
    assert f"= {trainings:,} local trainings; {7 * trainings:,} steps (7 each)" in said
    assert f" {rows['evidence']:,} rows = (" in said
    assert f"{rows['references']:,} rows of references" in said
    assert "needs 8 runs or more" in said


def test_check_draws_the_cohorts_and_places_what_a_sampler_refuses(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ComponentError("sampler.size", "too many; use 1")

    monkeypatch.setattr("fedmem.samplers.uniform.Uniform.cohort", refuse)
    Path("huge.yaml").write_text(SMALL + "sampler: {kind: uniform, size: 3}\n")
    done = call("check", "huge.yaml")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "huge.yaml:14  sampler.size: too many; use 1\n"


def test_check_goes_through_all_files_and_fails_if_one_is_wrong(small: Path) -> None:
    Path("wrong.yaml").write_text(SMALL.replace("runs: 2", "runs: 3"))
    done = call("check", "wrong.yaml", "small.yaml", "no.yaml")
    assert done.exit_code == 2
    assert "small.yaml  ok" in done.stdout
    assert "wrong.yaml:2  runs: 3 is odd" in done.stderr
    assert "no.yaml  there is no such file" in done.stderr


# run, measure, report


def test_run_report_and_measure_from_file_to_table(small: Path) -> None:
    done = call("run", "small.yaml", "--seed", "3", "--out", "results", "--set", "observe.every=1")
    assert done.exit_code == 0, done.stderr
    (folder,) = (small / "results" / "small").iterdir()
    assert f"results/small/{folder.name}" in done.stdout
    assert yaml_source.read_file(folder / "scenario.yaml").value["seed"] == 3
    before = (folder / "measurements.parquet").read_bytes()
    for command in ("report", "measure"):
        again = call(command, str(folder))
        assert again.exit_code == 0, again.stderr
        assert "memorisation" in again.stdout
    assert (folder / "measurements.parquet").read_bytes() == before


def test_quiet_prints_the_folder_only(small: Path) -> None:
    done = call("run", "small.yaml", "--quiet")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    assert Path(done.stdout.strip()).parent == Path("runs/small")


@pytest.fixture
def failing(small: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], Result]:
    """Make `fedmem.execution.run.run` raise; gives a function that says what."""

    def raising(error: BaseException) -> Result:
        def run(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(importlib.import_module("fedmem.execution.run"), "run", run)
        return call("run", "small.yaml")

    return raising


def test_a_failed_run_is_one_message_and_exit_code_1(failing: Callable[[BaseException], Result]) -> None:
    done = failing(RunError("round 3, client 2: the loss is NaN; lower client.lr"))
    assert done.exit_code == 1
    assert done.stderr == "error: round 3, client 2: the loss is NaN; lower client.lr\n"


def test_what_a_component_finds_out_late_gets_its_line_and_exit_code_2(
    failing: Callable[[BaseException], Result],
) -> None:
    done = failing(ComponentError("injections[0].per_client", "too many; use 1"))
    assert done.exit_code == 2
    assert done.stderr == "small.yaml:11  injections[0].per_client: too many; use 1\n"


def test_an_interrupted_run_says_how_to_start_again(
    failing: Callable[[BaseException], Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/fedmem", "run", "a file.yaml", "--seed", "3"])
    done = failing(KeyboardInterrupt())
    assert done.exit_code == 1
    assert "nothing was kept" in done.stderr
    assert "fedmem run 'a file.yaml' --seed 3" in done.stderr


SHARDED = ("--set", "speed.shard=1", "--set", "speed.workers=1")


@pytest.fixture
def stopping(small: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Make the second run of the scenario end with an error; gives a function that says with which."""
    from fedmem.execution import bank, sharding

    def stop(error: BaseException, *more: str) -> Result:
        def gather(*words: Any, **options: Any) -> TrainedBank:
            if list(options["runs"]) == [1]:
                raise error
            return bank.gather(*words, **options)

        with monkeypatch.context() as patch:
            patch.setattr(sharding, "gather", gather)
            patch.setattr(sys, "argv", ["fedmem", "run", "small.yaml", *SHARDED, *more])
            return call("run", "small.yaml", *SHARDED, *more)

    return stop


def test_an_interrupted_run_says_that_the_same_command_continues(stopping: Callable[..., Result]) -> None:
    done = stopping(KeyboardInterrupt())
    assert done.exit_code == 1
    said = "interrupted; kept 1 of 2 runs. The same command continues: fedmem run small.yaml --set speed.shard=1"
    assert said in done.stderr
    assert "nothing was kept" not in done.stderr
    done = call("run", "small.yaml", *SHARDED)
    assert done.exit_code == 0
    assert "1 run stored already; training 1 run in 1 shard" in done.stderr


def test_a_run_that_was_begun_anew_is_continued_without_force(stopping: Callable[..., Result]) -> None:
    assert (
        "fedmem run small.yaml --set speed.shard=1 --set speed.workers=1\n"
        in stopping(KeyboardInterrupt(), "--force").stderr
    )


def test_with_force_in_place_of_old_results_nothing_can_be_continued(stopping: Callable[..., Result]) -> None:
    assert call("run", "small.yaml", "--quiet").exit_code == 0
    assert "nothing was kept" in stopping(KeyboardInterrupt(), "--force").stderr
    assert call("run", "small.yaml", "--quiet").exit_code == 0
    assert [path.name.startswith(".") for path in Path("runs/small").iterdir()] == [False]


def test_a_failed_run_says_what_is_kept(stopping: Callable[..., Result]) -> None:
    done = stopping(RunError("round 2: no"))
    assert done.exit_code == 1
    first, second = done.stderr.splitlines()[-2:]
    assert first == "error: round 2: no"
    assert second.startswith("kept 1 of 2 runs; the same command continues: fedmem run small.yaml")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 4 TiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory:\nyou tried to allocate 1 bytes"),
        ValueError("Maximum allowed dimension exceeded"),
    ],
)
def test_too_little_memory_is_one_message(failing: Callable[[BaseException], Result], error: Exception) -> None:
    done = failing(error)
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert "too little memory" in done.stderr
    assert "lower" in done.stderr


def test_a_file_that_cannot_be_written_is_one_message(failing: Callable[[BaseException], Result]) -> None:
    done = failing(PermissionError(13, "Permission denied", "/somewhere/file"))
    assert (done.exit_code, done.stderr) == (1, "error: /somewhere/file: Permission denied\n")


def test_ctrl_c_while_figures_are_drawn_says_that_the_run_is_finished(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedmem.reporting.page.report", interrupt)
    for _ in range(2):  # the second time it is there already
        done = call("run", "small.yaml")
        assert done.exit_code == 1
        (folder,) = Path("runs/small").iterdir()
        assert f"fedmem report {folder}" in done.stderr
        assert "nothing was kept" not in done.stderr
    # with --force the old run does not count
    monkeypatch.setattr(importlib.import_module("fedmem.execution.run"), "run", lambda *_, **__: interrupt(0))
    assert "nothing was kept" in call("run", "small.yaml", "--force").stderr


def test_figures_that_cannot_be_written_leave_the_table(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    assert call("run", "small.yaml", "--quiet").exit_code == 0
    (folder,) = Path("runs/small").iterdir()
    monkeypatch.setattr("fedmem.reporting.page.put", full)
    done = call("report", str(folder))
    assert done.exit_code == 1
    assert "memorisation" in done.stdout
    assert "Report:" not in done.stdout
    assert done.stderr == f"error: the figures cannot be written to {folder}: No space left on device\n"


def test_an_alarm_stands_above_every_number_in_table_and_report(small: Path) -> None:
    done = call(
        "run",
        "small.yaml",
        *("--set", "client={kind: sgd, lr: 1e30}", "--set", "injections=[]", "--set", "estimators=[]"),
        *("--set", "tolerate.not_finite=true"),
    )
    assert done.exit_code == 1
    assert done.stderr.count("alarm: round 2") == 2
    lines = done.stdout.splitlines()
    assert lines[1].startswith("ALARM: round 2, level local: 6 of 6 models have diverged")
    (folder,) = Path("runs/small").iterdir()
    page = (folder / "report.html").read_text()
    assert page.index("ALARM: round 2") < page.index("before aggregation")


def test_of_many_alarms_the_table_shows_three_and_counts_the_rest() -> None:
    run: Any = SimpleNamespace(manifest={"alarms": [f"round {round_number}" for round_number in range(9)]})
    assert alarms(run) == [
        *(f"ALARM: round {round_number}" for round_number in range(3)),
        "ALARM: and 6 more, all in manifest.json",
    ]


def test_a_place_that_cannot_be_written_is_exit_code_2_and_leaves_nothing(small: Path) -> None:
    Path("file").write_text("mine")
    done = call("run", "small.yaml", "--out", "file")
    assert done.exit_code == 2
    assert "cannot hold the results" in done.stderr
    assert sorted(path.name for path in small.iterdir()) == ["file", "small.yaml"]


@pytest.mark.parametrize("command", ["measure", "report"])
def test_a_damaged_run_is_one_message(small: Path, command: str) -> None:
    assert call("run", "small.yaml", "--quiet").exit_code == 0
    (folder,) = Path("runs/small").iterdir()
    (folder / "audit.parquet").write_bytes(b"PAR1")
    done = call(command, str(folder))
    assert done.exit_code == 1
    assert "audit.parquet is damaged" in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_output_that_cannot_be_written_is_one_message(small: Path) -> None:
    def check() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        forked.command("check", "small.yaml")

    done = Forked(check).wait()
    assert done.returncode == 1
    assert done.stderr == "error: the output cannot be written: No space left on device\n"

    def show() -> None:
        sys.stdout.reconfigure(encoding="ascii")  # type: ignore[union-attr]
        forked.command("show", "client", "sgd")

    done = Forked(show).wait()
    assert done.returncode == 0, done.stderr
    assert re.search(r"momentum .* \? 0, < 1", done.stdout)


CTRL_C = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background are started with Ctrl-C ignored

class Keys:
    def find_spec(self, name, path=None, target=None):
        if name == where:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(10**6): pass
            except KeyboardInterrupt:
                if how == "hidden":
                    raise ImportError("a library that hides what happened")
                raise

where, how = sys.argv[1:3]
del sys.argv[1:3]
sys.meta_path.insert(0, Keys())
from fedmem.cli.main import main
main()
"""


@pytest.mark.parametrize(("where", "how"), [("typer", "open"), ("pydantic", "open"), ("pydantic", "hidden")])
def test_ctrl_c_during_imports_shows_no_trace(small: Path, where: str, how: str) -> None:
    done = outside(where, how, "check", "small.yaml", code=CTRL_C)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_our_own_mistakes_show_their_trace(failing: Callable[[BaseException], Result]) -> None:
    assert isinstance(failing(AssertionError("bug")).exception, AssertionError)


def test_a_folder_that_is_no_run_gets_one_answer_from_both_commands(small: Path) -> None:
    (small / "scenario").mkdir()
    Path("scenario/scenario.yaml").write_text(SMALL)  # a folder that looks like a run, but is none
    for folder in ("nowhere", "scenario", "small.yaml"):
        answers = [call(command, folder) for command in ("measure", "report")]
        assert {done.exit_code for done in answers} == {2}
        (said,) = {done.stderr for done in answers}
        assert said.startswith(f"error: {folder} is no finished run")


def test_generated_audit_examples_are_told_apart_from_rows_of_the_data(small: Path) -> None:
    text = SMALL.replace(
        "  - {kind: typical, per_client: 1}", "  - {kind: typical}\n  - {kind: random_pattern, copies: 3}"
    )
    text = text.replace("{kind: synthetic, rows: 200, test: 40}", "{kind: digits}")
    Path("canaries.yaml").write_text(text)
    said = call("check", "canaries.yaml")
    assert said.exit_code == 0, said.stderr
    rows, made = map(int, present(re.search(r"(\d+) audit \(\+ (\d+) generated\)", said.stdout)).groups())
    folder = call("run", "canaries.yaml", "--quiet").stdout.strip()
    assert rows + made == len(fedmem.read(folder).audit)
    assert "generated" not in call("check", "small.yaml").stdout


def test_a_misspelt_command_is_suggested_once() -> None:
    assert CliRunner().invoke(app, ["lst"]).stderr.count("Did you mean") == 1


def test_the_attack_to_copy_is_the_usual_one() -> None:
    assert "kind: inverting_gradients" in CliRunner().invoke(app, ["show", "probe", "leakage"]).stdout
