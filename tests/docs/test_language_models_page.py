"""The page on language models: its scenario runs, and its other YAML is accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from fedmem.scenario import catalogue

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "language-models.md").read_text("utf-8")
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def test_the_first_run_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (text,) = (block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if block.startswith("# tiny.yaml"))
    Path("tiny.yaml").write_text(text)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code, {})
    assert "local" in capsys.readouterr().out


def test_parts_that_are_shown_can_be_built() -> None:
    families = {"dataset": "dataset", "model": "model", "injections": "injection"}
    built = [
        catalogue.build(families[field], part)
        for block in BLOCKS
        for field, value in block.items()
        if field in families
        for part in (value if isinstance(value, list) else [value])
    ]
    assert len(built) >= 9


def test_values_of_train_are_accepted() -> None:
    for value in ("head", 2, "all"):
        assert f"`train: {value}`" in PAGE
        catalogue.build("model", {"kind": "huggingface", "path": "x", "train": value})
