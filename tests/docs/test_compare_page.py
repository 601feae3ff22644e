"""Every command and piece of Python of the page on comparisons runs, made small."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import fedmem
from fedmem.cli.main import app
from fedmem.studies.grid import cross, label_of, parse_vary, settings_of
from fedmem.studies.sweep_file import load_sweep

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "compare-and-sweep.md").read_text(encoding="utf-8")
SMALL = [
    "runs=8",
    "rounds=2",
    "clients=5",
    "sampler.size=4",
    "references=20",
    "probes=[]",
    "bootstrap=20",
    "observe.every=2",
]
SMALL += ["injections=[{kind: random_pattern, per_client: 1}]", "estimators=[{kind: exposure}]", "observe.rounds=[]"]


def test_the_command_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (command,) = re.findall(r"^\$ fedmem (compare .*)$", PAGE, flags=re.MULTILINE)
    small = [word for change in SMALL for word in ("--set", change)]
    given = [*shlex.split(command.replace("0:10", "0:2")), *small, "--out", str(tmp_path), "--jobs", "1"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    assert "3 settings x 2 seeds" in done.output


def test_components_on_the_page_are_settings() -> None:
    (varied, given) = re.findall(r'`--vary "([^"]+)"`|`(strategy\.kind=my_package[^`]+)`', PAGE)
    settings = settings_of(parse_vary([varied[0]]))
    assert [label_of(cell.setting) for cell in cross(ROOT / "scenarios" / "quickstart.yaml", settings, (0,))] == [
        "trimmed_mean beta=0.2",
        "fedavg",
    ]
    assert parse_vary([given[1]])


def test_the_python_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    real = fedmem.compare

    def small(*arguments: Any, **named: Any) -> Any:
        return real(*arguments, **{**named, "seeds": range(2), "overrides": SMALL, "out": tmp_path, "jobs": 1})

    monkeypatch.setattr(fedmem, "compare", small)
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    exec(code, {})
    assert "fedmedian, by_size" in capsys.readouterr().out


def test_the_sweep_of_the_page_is_right(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    place = tmp_path / "experiments" / "sweeps"
    place.mkdir(parents=True)
    (place / "page.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "quickstart.yaml").touch()
    plan, base = load_sweep(place / "page.yaml")
    assert base.resolve() == (tmp_path / "scenarios" / "quickstart.yaml").resolve()
    assert len(cross(ROOT / "scenarios" / "quickstart.yaml", plan.settings(), plan.all_seeds, plan.overrides)) == 36
