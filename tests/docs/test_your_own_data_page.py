"""Every command and example of the page on data of one's own runs, and the kinds that it names exist."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedmem.cli.main import app
from fedmem.scenario import catalogue

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "your-own-data.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "scenarios").mkdir()
    for name in ("own_csv.yaml", "patients.csv"):
        shutil.copy(ROOT / "scenarios" / name, tmp_path / "scenarios" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_examples_of_the_page_run_in_one_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(examples) == 5
    for code in examples:
        exec(compile(code, "docs/your-own-data.md", "exec"), {})
    said = capsys.readouterr().out
    assert "('ill', 'well') ('East', 'Lake', 'North', 'South', 'West')" in said
    assert "age: number, 0 to 120 (the range in `ranges`)" in said
    assert "('cat', 'dog') ('ada', 'eva') ada/cat/" in said
    assert said.count("('ada', 'ben', 'cy')") == 2


@pytest.mark.slow
def test_commands_of_the_page_succeed(folder: Path) -> None:
    commands = re.findall(r"^\$ fedmem (.*)$", PAGE, flags=re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        done = CliRunner().invoke(app, shlex.split(command))
        assert done.exit_code == 0, done.stderr


def test_loaders_of_the_page_exist() -> None:
    assert set(re.findall(r"kind: (\w+)", PAGE)) - {"natural"} <= set(catalogue.kinds("dataset"))
