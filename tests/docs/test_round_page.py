"""The listener of the page on rounds runs, and its table lists every event."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import fedmem
from fedmem.contracts import events

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-a-round-runs.md").read_text(encoding="utf-8")
SMALL = ["clients=4", "sampler.size=2", "references=20", "bootstrap=20"]
SMALL += ["injections=[{kind: random_pattern, per_client: 1}]"]


def test_the_listener_of_the_page_writes_readings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = fedmem.load_scenario

    def small(file: str, changes: list[str]) -> Any:
        return real(file, [*changes, *SMALL])

    monkeypatch.setattr(fedmem, "load_scenario", small)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    exec(code, {})
    rows = [json.loads(line) for line in (tmp_path / "readings.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["run"] for row in rows} == {0, 1}
    assert "round 2 of 2 in runs 0 to 1" in capsys.readouterr().out


def test_the_table_of_the_page_lists_every_event_and_field() -> None:
    rows = re.findall(r"^\| `(\w+)`(?:, `(\w+)`)? \|.*\| (.*) \|$", PAGE, flags=re.MULTILINE)
    listed = {name: set(re.findall(r"`(\w+)`", text)) for *names, text in rows for name in names if name}
    kinds = {kind.__name__: kind for kind in events.Event.__subclasses__()}
    assert set(listed) == set(kinds)
    for name, kind in kinds.items():
        assert {field.name for field in fields(kind)} - {"place"} <= listed[name]
