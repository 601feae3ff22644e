"""Tests of `fedmem/scenario/check_coins.py`."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.errors import ScenarioError
from tests.tiny import tiny

OWEN = {"law": "owen"}


@pytest.mark.parametrize(
    ("coins", "message"),
    [
        ({"law": "rate"}, r"coins: .law: rate. needs rate; add rate"),
        ({"law": "beta", "alpha": 2}, r"coins: .law: beta. needs alpha and beta; add beta"),
        ({"rate": 0.3}, r"coins\.rate: belongs to .law: rate., not to balanced"),
        ({"law": "owen", "alpha": 2}, r"coins\.alpha: belongs to .law: beta., not to owen"),
        ({"law": "rate", "rate": 0.01}, r"coins\.rate: 0\.01 of 8 draws is 0, so that no run would be in"),
        ({"law": "rate", "rate": 0.99}, r"coins\.rate: 0\.99 of 8 draws is 8, so that no run would be out"),
    ],
)
def test_wrong_laws_are_refused(coins: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        tiny(runs=8, estimators=[], coins=coins)


@pytest.mark.parametrize(
    ("field", "component"),
    [
        ("estimators", {"kind": "memorisation"}),
        ("estimators", {"kind": "membership", "attack": {"kind": "lira"}}),
        ("estimators", {"kind": "agreement"}),
        ("probes", {"kind": "leakage", "attack": {"kind": "idlg"}}),
    ],
    ids=lambda value: value if isinstance(value, str) else value["kind"],
)
def test_components_without_support_are_refused(field: str, component: dict[str, Any]) -> None:
    tiny(runs=16, **{field: [component]})
    with pytest.raises(ScenarioError, match=rf"{field}\[0\].*random inclusion by owen") as error:
        tiny(runs=16, coins=OWEN, **{"estimators": [], field: [component]})
    assert str(error.value).count("by owen") == 1, "one message"


def test_components_with_support_are_allowed() -> None:
    tiny(runs=8, coins=OWEN, estimators=[{"kind": "data_value"}], probes=[{"kind": "utility"}])
    tiny(
        runs=8,
        coins={"law": "rate", "rate": 0.75},
        estimators=[{"kind": "data_value"}, {"kind": "memorisation"}, {"kind": "consistency"}],
    )


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"leave_out": {"clients": "all"}}, r"leave_out\.clients"),
        ({"roster": "pilot"}, "roster"),
        ({"injections": [{"kind": "existing_secret", "coins": False}]}, r"injections\[0\]\.coins"),
    ],
)
def test_other_coins_are_refused(more: dict[str, Any], place: str) -> None:
    with pytest.raises(ScenarioError, match=rf"{place}: .*random inclusion by owen"):
        tiny(runs=8, estimators=[], coins=OWEN, **more)


def test_runs_need_to_be_even_only_where_coins_are_balanced() -> None:
    tiny(runs=9, estimators=[], coins=OWEN)
    tiny(runs=9, estimators=[], coins={"law": "rate", "rate": 0.5}, twins=3)
    with pytest.raises(ScenarioError, match=r"runs: 9 is odd"):
        tiny(runs=9, estimators=[])
    with pytest.raises(ScenarioError, match=r"twins: 9 runs cannot be divided into sets of 2"):
        tiny(runs=9, estimators=[], coins=OWEN, twins=2)
    with pytest.raises(ScenarioError, match=r"runs: .*needs at least 2 runs, but runs is 1"):
        tiny(runs=1, estimators=[], coins=OWEN)
