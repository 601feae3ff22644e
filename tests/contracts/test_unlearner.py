"""Tests of `fedmem/contracts/unlearner.py`."""

from __future__ import annotations

from fedmem.contracts.unlearner import Unlearner, unlearner_declaration
from fedmem.scenario.catalogue import build, kinds


def test_every_kind_is_an_unlearner() -> None:
    assert kinds("unlearner") == ("fed_eraser", "fine_tune", "gradient_ascent", "pga", "retrain", "scrub", "sisa")
    assert all(isinstance(build("unlearner", {"kind": kind}), Unlearner) for kind in kinds("unlearner"))


def test_declarations_follow_from_fields() -> None:
    ascent = unlearner_declaration(build("unlearner", {"kind": "gradient_ascent", "steps": 7}))
    assert (ascent.steps, ascent.needs_population, ascent.stored_models) == (7, True, None)
    eraser = unlearner_declaration(build("unlearner", {"kind": "fed_eraser", "every": 3}))
    assert eraser.trained_rounds is not None
    assert tuple(eraser.trained_rounds(7)) == (1, 4, 7)
    assert eraser.without_windows
