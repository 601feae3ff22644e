"""Tests of `fedmem/scenario/check_tied_dropout.py`."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.errors import ScenarioError
from tests.tiny import tiny

TIED: dict[str, Any] = {"layers": ["activation1"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client": {"kind": "dp_sgd", "noise_multiplier": 1.0}}, "dp_sgd clips the gradients of single examples"),
        (
            {"probes": [{"kind": "leakage", "attack": {"kind": "idlg"}}]},
            r"probes\[0\].*leakage reads an update as the gradient",
        ),
        ({"tied_dropout": {"layers": ["activation1"] * 2}}, r"layers\[1\].*named twice"),
        (
            {
                "central": "shuffled",
                "sampler": {"kind": "everyone"},
                "tied_dropout": {**TIED, "unit": "client"},
            },
            r"tied_dropout\.unit.*write unit: example",
        ),
    ],
    ids=["dp_sgd", "leakage", "twice", "central"],
)
def test_parts_that_cannot_serve_it_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        tiny(**{"tied_dropout": TIED, **changes})


def test_scrubbing_needs_tied_units_or_blocks() -> None:
    def phase(unlearner: dict[str, Any], **changes: Any) -> None:
        then = [{"rounds": 1, "forget": {"kinds": ["typical"]}, "unlearner": {"kind": "scrub", **unlearner}}]
        tiny(then=then, **changes)

    with pytest.raises(ScenarioError, match=r"scrub resets the units.*tied_dropout.*blocks: \[1\]"):
        phase({})
    phase({"blocks": [1]})
    phase({}, tied_dropout=TIED)
