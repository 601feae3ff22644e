"""The command line: what each command prints, its exit codes, and how fast it answers."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fedmem
from fedmem.cli.main import app
from tests.cli.main_helpers import SMALL, call, outside
from tests.forked import Forked


@pytest.mark.parametrize("module", ["fedmem", "fedmem.cli.main"])
def test_the_command_is_a_module_too(small: Path, module: str) -> None:
    Path("wrong.yaml").write_text(SMALL.replace("rounds: 2", "rounds: 0"))
    words = [sys.executable, "-m", module, "check", "small.yaml", "wrong.yaml"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2
    assert "small.yaml  ok" in done.stdout
    assert "rounds" in done.stderr


# Names and start


def test_package_import_is_lazy_and_names_load_on_access() -> None:
    code = "import sys, fedmem\nprint(sorted(m for m in sys.modules if m.startswith('fedmem')))"
    assert outside(code=code).stdout.strip() == "['fedmem']"
    assert dir(fedmem) == sorted(fedmem.__all__)
    with pytest.raises(AttributeError, match="no attribute 'compute'"):
        _ = fedmem.compute


@pytest.mark.parametrize("first", ["run", "measure", "Observed"])
def test_lazy_names_are_callable_in_any_order_of_access(first: str) -> None:
    def print_what_is_not_callable() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "fedmem"]:
            del sys.modules[name]
        package = importlib.import_module("fedmem")
        getattr(package, first)
        print([name for name in package.__all__ if name[0] != "_" and not callable(getattr(package, name))])

    assert Forked(print_what_is_not_callable).wait().stdout.strip() == "[]"


# list and show


# check


# run, measure, report


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


def test_example_of_leakage_uses_inverting_gradients() -> None:
    assert "kind: inverting_gradients" in CliRunner().invoke(app, ["show", "probe", "leakage"]).stdout
