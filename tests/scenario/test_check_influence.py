"""Tests of `fedmem/scenario/check_influence.py`."""

from __future__ import annotations

import pytest

from fedmem.errors import ScenarioError
from tests.tiny import tiny


def test_a_score_of_influence_needs_targets() -> None:
    scored = {"runs": 16, "estimators": [{"kind": "linear_datamodeling"}]}
    for signals in ([], [{"kind": "tracin"}]):
        with pytest.raises(ScenarioError, match=r"no signal has any; write for example \{kind: tracin, targets: 40\}"):
            tiny(signals=signals, **scored)
    tiny(signals=[{"kind": "tracin", "targets": 4}], **scored)
