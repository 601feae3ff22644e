"""Tests of `fedmem/scenario/check_tied_dropout.py` and of the section of a scenario."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.errors import ScenarioError
from fedmem.scenario.tied_dropout import TiedDropout
from tests.tiny import tiny

TIED: dict[str, Any] = {"layers": ["activation1"]}


def test_it_is_part_of_the_scenario_and_its_id() -> None:
    plain, tied, by_client = (
        tiny(**({} if one is None else {"tied_dropout": one})) for one in (None, TIED, {**TIED, "unit": "client"})
    )
    assert len({plain.id, tied.id, by_client.id}) == 3
    assert tied.tied_dropout == TiedDropout(layers=("activation1",))
    assert plain.id == tiny(tied_dropout=None).id


@pytest.mark.parametrize(
    "changes",
    [{"fixed": 0}, {"fixed": 1.5}, {"tied": -0.1}, {"tied": 1.1}, {"unit": "round"}, {"layers": []}, {"share": 0.1}],
    ids=lambda changes: next(iter(changes)),
)
def test_shares_and_fields_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ScenarioError, match=rf"tied_dropout\.{next(iter(changes))}"):
        tiny(tied_dropout={**TIED, **changes})


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
