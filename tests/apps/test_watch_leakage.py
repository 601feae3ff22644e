"""Tests of `fedmem/apps/watch_leakage.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedmem.apps.attack import Known
from fedmem.apps.watch_leakage import WatchLeakage
from fedmem.attacks.linear_layer import LinearLayer
from tests.lab import Lab, digits, gradient_of, network, parameters, transition

KNOWN = Known(input_shape=(1, 8, 8), num_classes=10, num_images=1, lr=0.1)
MINE, OTHERS = digits().take(np.arange(1)), digits().take(np.arange(50, 60))


def watch(**changes: Any) -> WatchLeakage:
    given: dict[str, Any] = {
        "model": network(), "attack": LinearLayer(), "known": KNOWN, "examples": {"mine": MINE.inputs},
        "references": {"mine": OTHERS.inputs}, "rounds": [1],
    }  # fmt: skip
    return WatchLeakage(**(given | changes))


def test_planted_example_is_identified_at_its_client_only() -> None:
    model, before = network(), parameters(network())
    steps = []
    for client, rows in enumerate((MINE, OTHERS.take(np.arange(1)))):
        gradient = gradient_of(model, before, rows.inputs, rows.targets)
        after = {name: value - 0.1 * gradient[name] for name, value in before.items()}
        steps.append(transition(0, 1, client, before, after, 1))
    watcher = watch(member_of={"mine": 0})
    watcher.begin(before)
    watcher.see(steps)
    table = watcher.summary().set_index("measure")
    assert table.value["identified"] == 1
    assert table.note.unique().tolist() == ["a difference between clients, not memorisation"]
    frame = watcher.frame().set_index("client")
    assert frame.holds.tolist() == [True, False]
    assert frame.identified.tolist() == [1, 0]
    assert frame.psnr[0] > 60 > frame.psnr[1]
    assert set(frame.gallery) == {10}


def test_levels_and_clients_without_examples_are_not_attacked() -> None:
    (local,) = Lab().local(runs=(0,), clients=(0,))
    watcher = watch(levels=["global"])
    watcher.see([local])
    watcher.see([replace(local, level="global", num_examples=0)])
    assert watcher.frame().empty


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"examples": {}, "references": {}}, "examples is empty"),
        ({"references": {"other": OTHERS.inputs}}, "references for 'other'"),
        ({"examples": {"mine": np.zeros((2, 64))}}, r"inputs have shape \(2, 64\), wanted \(n, 1, 8, 8\)"),
        ({"examples": {"mine": MINE.inputs - 1}}, r"must lie in \[0, 1\]"),
    ],
)
def test_wrong_examples_and_references_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        watch(**changes)
