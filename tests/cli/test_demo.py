"""Tests of `fedmem/cli/demo.py`; whole runs are in `tests/studies/test_demo.py`."""

from __future__ import annotations

import pytest

from fedmem.studies.demo import Control, Effect
from tests.cli.main_helpers import call


@pytest.mark.parametrize(
    ("planted", "null", "code", "failed"),
    [
        (0.0002, 0.4, 0, []),
        (0.4, 0.4, 1, ["positive"]),
        (0.0002, 0.0002, 1, ["negative"]),
        (0.4, 0.0002, 1, ["positive", "negative"]),
    ],
)
def test_demo_ends_with_the_verdict_of_its_controls(
    monkeypatch: pytest.MonkeyPatch, planted: float, null: float, code: int, failed: list[str]
) -> None:
    controls = [
        Control(
            is_planted=is_planted,
            effects=tuple(
                Effect(level=level, value=0.5, low=0.4, high=0.6, p=p, auc=0.9) for level in ("local", "global")
            ),
        )
        for is_planted, p in ((True, planted), (False, null))
    ]
    monkeypatch.setattr("fedmem.studies.demo.run_controls", lambda report: controls)
    done = call("demo")
    assert done.exit_code == code
    assert [name for name in ("positive", "negative") if f"{name} control  FAILED" in done.stdout] == failed
    assert [name for name in ("positive", "negative") if f"error: the {name} control failed" in done.stderr] == failed
    assert ("Next: fedmem run quickstart" in done.stdout) == (not failed)
