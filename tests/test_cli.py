"""The command line: what each command prints, its exit codes, and how fast it answers."""

import importlib
import io
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fedmem
from fedmem import catalogue, yaml_source
from fedmem.cli import app
from fedmem.components import FAMILIES
from fedmem.errors import ComponentError, RunError
from fedmem.progress import Progress

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
def small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(app, list(arguments))


def outside(*arguments, code="from fedmem.cli import main; main()"):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


# Names and start


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom fedmem.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "heavy = {'numpy', 'torch', 'flwr', 'pydantic', 'yaml', 'pandas', 'sklearn', 'scipy', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert outside(code=code).stdout.strip() == "[]"


def test_importing_the_package_imports_nothing_and_its_names_are_there_when_asked():
    code = "import sys, fedmem\nprint(sorted(m for m in sys.modules if m.startswith('fedmem')))"
    assert outside(code=code).stdout.strip() == "['fedmem']"
    assert dir(fedmem) == sorted(fedmem.__all__)
    with pytest.raises(AttributeError, match="no attribute 'compute'"):
        _ = fedmem.compute


@pytest.mark.parametrize("first", ["run", "measure", "Observed"])
def test_names_are_functions_and_classes_in_whatever_order_they_are_asked_for(first):
    code = (
        f"import fedmem\nfedmem.{first}\n"
        "print([name for name in fedmem.__all__ if name[0] != '_' and not callable(getattr(fedmem, name))])"
    )
    assert outside(code=code).stdout.strip() == "[]"


def test_version():
    assert call("--version").stdout.strip() == metadata.version("fedmem") == fedmem.__version__


def test_every_command_has_help():
    for command in ("run", "measure", "report", "check", "list", "show", "fetch"):
        done = call(command, "--help")
        assert done.exit_code == 0
        assert "Usage" in done.stdout


# list and show


def test_list_names_every_kind_of_every_family():
    said = call("list").stdout
    for family in FAMILIES:
        assert re.search(rf"^{family}$", said, re.MULTILINE)
        for kind in catalogue.kinds(family):
            assert re.search(rf"^  {kind} +\S", said, re.MULTILINE)


def test_list_of_one_family():
    assert [line.split()[0] for line in call("list", "sampler").stdout.splitlines()] == list(catalogue.kinds("sampler"))


def test_list_of_an_unknown_family():
    done = call("list", "samplers")
    assert done.exit_code == 2
    assert "did you mean 'sampler'?" in done.stderr


@pytest.mark.parametrize(
    ("family", "kind", "says"),
    [
        ("client", "sgd", ["momentum", "≥ 0, < 1", "0.1", "whole number or null"]),
        ("strategy", "fedavg", ["size, uniform"]),
        ("probe", "leakage", ["inverting_gradients", "(must be given)", "probes:\n  - {kind: leakage, attack: {"]),
        ("sampler", "everyone", ["sampler: {kind: everyone}"]),
        ("injection", "typical", ["all of its family have", "- `stop`: last round in which an in"]),
        ("strategy", "flwr.serverapp.strategy:FedProx", ["proximal_mu"]),
    ],
)
def test_show_explains_fields_and_gives_an_example(family, kind, says):
    done = call("show", family, kind)
    assert done.exit_code == 0, done.stderr
    for text in says:
        assert text in done.stdout


def test_the_example_of_show_is_yaml_that_builds_the_component():
    line = call("show", "partition", "dirichlet").stdout.strip().splitlines()[-1]
    read = yaml_source.read_text(line, "x").value
    assert catalogue.dump(catalogue.build("partition", read["partition"])) == read["partition"]


def test_show_of_an_unknown_kind():
    done = call("show", "sampler", "unifrom")
    assert done.exit_code == 2
    assert "did you mean 'uniform'?" in done.stderr


# check


def test_check_says_what_will_happen_and_where_every_row_goes(small):
    done = call("check", "small.yaml", "--set", "runs=4")
    assert done.exit_code == 0, done.stderr
    assert "4 runs × 2 rounds × 3 clients = 24 local trainings" in done.stdout
    assert "2 rounds: 0, 2" in done.stdout
    assert "at most 0.50" in done.stdout
    total, *parts = (
        int(number) for number in re.findall(r"(\d+) ?[+=a-z]", re.search("rows .*", done.stdout)[0] + " ")
    )
    assert total == sum(parts) == 240
    assert not (small / "runs").exists()


def test_check_goes_through_all_files_and_fails_if_one_is_wrong(small):
    Path("wrong.yaml").write_text(SMALL.replace("runs: 2", "runs: 3"))
    done = call("check", "wrong.yaml", "small.yaml", "no.yaml")
    assert done.exit_code == 2
    assert "small.yaml  ok" in done.stdout
    assert "wrong.yaml:2  runs: 3 is odd" in done.stderr
    assert "no.yaml  there is no such file" in done.stderr


# run, measure, report


def test_run_report_and_measure_from_file_to_table(small):
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


def test_quiet_prints_the_folder_only(small):
    done = call("run", "small.yaml", "--quiet")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    assert Path(done.stdout.strip()).parent == Path("runs/small")


@pytest.fixture
def failing(small, monkeypatch):
    """Make `fedmem.running.run` raise; gives a function that says what."""

    def raising(error):
        def run(*_, **__):
            raise error

        monkeypatch.setattr(importlib.import_module("fedmem.running"), "run", run)
        return call("run", "small.yaml")

    return raising


def test_a_failed_run_is_one_message_and_exit_code_1(failing):
    done = failing(RunError("round 3, client 2: the loss is NaN; lower client.lr"))
    assert done.exit_code == 1
    assert done.stderr == "error: round 3, client 2: the loss is NaN; lower client.lr\n"


def test_what_a_component_finds_out_late_gets_its_line_and_exit_code_2(failing):
    done = failing(ComponentError("injections[0].per_client", "too many; use 1"))
    assert done.exit_code == 2
    assert done.stderr == "small.yaml:11  injections[0].per_client: too many; use 1\n"


def test_an_interrupted_run_says_how_to_start_again(failing, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/fedmem", "run", "a file.yaml", "--seed", "3"])
    done = failing(KeyboardInterrupt())
    assert done.exit_code == 1
    assert "nothing was kept" in done.stderr
    assert "fedmem run 'a file.yaml' --seed 3" in done.stderr


def test_our_own_mistakes_show_their_trace(failing):
    assert isinstance(failing(AssertionError("bug")).exception, AssertionError)


def test_measuring_what_is_no_run_is_a_message(small):
    for command in ("measure", "report"):
        done = call(command, "nowhere")
        assert done.exit_code in (1, 2)
        assert isinstance(done.exception, SystemExit)
        assert "nowhere" in done.stderr


# Progress


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_progress_without_a_terminal_is_a_line_now_and_then():
    clock, stream = Clock(), io.StringIO()
    with Progress(stream=stream, every_seconds=5, clock=clock) as progress:
        progress.start(rounds=10, runs=32)
        for round in range(1, 11):
            clock.now += 2
            progress.update(round, accuracy=0.5 + round / 100 if round > 1 else None)
        progress.stage("writing")
    assert stream.getvalue().splitlines() == [
        "round 3/10, 32 runs, global accuracy 0.530, about 14 s left",
        "round 6/10, 32 runs, global accuracy 0.560, about 8 s left",
        "round 9/10, 32 runs, global accuracy 0.590, about 2 s left",
        "round 10/10, 32 runs, global accuracy 0.600, about 0 s left",
        "writing",
    ]


def test_progress_can_be_silent():
    stream = io.StringIO()
    with Progress(quiet=True, stream=stream) as progress:
        progress.start(rounds=1, runs=1)
        progress.update(1, 0.5)
        progress.stage("writing")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("per_round", "left"), [(1, "99 s"), (60, "99 min"), (3600, "99.0 h")])
def test_time_left_has_a_fitting_unit(per_round, left):
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream=stream, every_seconds=0, clock=clock)
    progress.start(rounds=100, runs=1)
    clock.now += per_round
    progress.update(1, None)
    assert stream.getvalue() == f"round 1/100, 1 run, about {left} left\n"


def test_progress_on_a_terminal_is_a_bar_and_leaves_it_in_order(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()

    def fail():
        with Progress(stream=stream) as progress:
            progress.start(rounds=4, runs=8)
            progress.update(2, 0.75)
            progress.stage("estimating")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    said = stream.getvalue()
    for text in ("2/4", "8 runs", "global accuracy 0.750", "estimating"):
        assert text in said
    hide, show = "\x1b[?25l", "\x1b[?25h"
    assert said.count(hide) == said.count(show)
