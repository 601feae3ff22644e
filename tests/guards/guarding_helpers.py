"""What tests of guarding share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedmem.errors import RunError
from fedmem.execution.run import run
from tests.tiny import tiny

SMALL: dict[str, Any] = {
    "runs": 2,
    "rounds": 2,
    "clients": 3,
    "population": 5,
    "references": 20,
    "bootstrap": 20,
    "injections": [{"kind": "random_pattern", "per_client": 1}],
    "model": {"kind": "tests.bad_parts:BadModel", "at": "nowhere"},
    "sampler": {"kind": "everyone"},
    "client": {"kind": "sgd", "batch_size": 8},
    "observe": {},
}


PLACES = {
    "dataset": "dataset",
    "partition": "partition",
    "model": "model",
    "injection": "injections",
    "sampler": "sampler",
    "client": "client",
    "defence": "defences",
    "strategy": "strategy",
    "unlearner": "unlearner",
    "probe": "probes",
    "signal": "signals",
    "estimator": "estimators",
}
"""Family -> its field in a scenario."""


def with_part(family: str, kind: str, **fields: Any) -> dict[str, Any]:
    part = {"kind": f"tests.bad_parts:{kind}", **fields}
    if kind == "BadMembership":
        return {"runs": 2, "estimators": [{"kind": "membership", "attack": part}]}
    if kind == "BadReconstruction":
        return {"probes": [{"kind": "leakage", "attack": part}]}
    place = PLACES[family]
    return {place: [part] if place.endswith("s") else part}


def message_of(tmp_path: Path, changes: dict[str, Any]) -> str:
    """The error that ends a run: one that says no more than twenty lines, and leaves no run behind."""
    with pytest.raises(RunError) as caught:
        run(tiny(**{**SMALL, **changes}), out=tmp_path)
    # a model is built and tried before there is a run
    is_tried_before = "model" in changes and "rows" not in changes["model"]
    assert caught.value.exit_code == (2 if is_tried_before else 1)
    assert not list(tmp_path.glob("*/*/manifest.json"))
    text = str(caught.value)
    assert len(text.splitlines()) <= 20
    assert len(text) < 2500
    return text
