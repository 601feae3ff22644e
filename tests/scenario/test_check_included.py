"""Tests of `fedmem/scenario/check_included.py`."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.errors import ScenarioError
from tests.federation.test_coin_groups import injections
from tests.tiny import tiny


def test_examples_that_are_in_in_every_run_are_in_no_group() -> None:
    wrong = {"kind": "existing_secret", "included": "together", "coins": False}
    with pytest.raises(ScenarioError, match=r"(?s)included.*are in in every run; leave it out"):
        tiny(injections=[wrong], estimators=[])


@pytest.mark.parametrize(
    ("field", "component"),
    [
        ("estimators", {"kind": "audit"}),
        ("estimators", {"kind": "cross_influence"}),
        ("estimators", {"kind": "adjusted_memorisation"}),
        ("probes", {"kind": "leakage", "attack": {"kind": "idlg"}}),
    ],
    ids=lambda value: value if isinstance(value, str) else value["kind"],
)
def test_components_that_count_examples_are_refused(field: str, component: dict[str, Any]) -> None:
    tiny(runs=8, **{field: [component]})
    with pytest.raises(
        ScenarioError, match=rf"(?s){field}\[0\].*examples of mislabelled are in or out together"
    ) as error:
        tiny(runs=8, injections=injections("together"), **{field: [component]})
    assert str(error.value).count("together") == 1, "one message"


def test_components_that_count_draws_are_allowed() -> None:
    tiny(
        runs=8,
        injections=injections("by_client"),
        estimators=[
            {"kind": "memorisation"},
            {"kind": "exposure"},
            {"kind": "membership", "attack": {"kind": "lira"}},
            {"kind": "membership", "attack": {"kind": "loss_threshold"}},
        ],
        probes=[{"kind": "utility"}],
    )
