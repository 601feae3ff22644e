"""Tests of `fedmem/contracts/measure.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedmem.contracts.measure import Measure, from_json, to_json
from fedmem.reporting.measures import measures_to_store, shipped_by, shipped_measures
from tests.reporting.measures_helpers import write_throwaway
from tests.tiny import tiny


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The changes to a scenario that use both components of a user's own."""
    monkeypatch.syspath_prepend(tmp_path)
    return write_throwaway(tmp_path)


@pytest.mark.parametrize("name", sorted(shipped_measures()))
def test_every_shipped_measure_declares_its_meaning(name: str) -> None:
    measure = shipped_measures()[name]
    assert measure.title
    assert measure.means.endswith(".")
    assert measure.range[0] < measure.range[1]
    assert from_json(to_json(measure)) == measure or measure.null != measure.null
    if measure.headline:
        assert measure.section in ("privacy", "utility") or measure.is_not


def test_shipped_components_with_one_name_mean_the_same() -> None:
    """Components that share a measure declare the same one, so that a name has one meaning."""
    declared = {(name, measure) for own in shipped_by().values() for name, measure in own.items()}
    assert len(declared) == len({name for name, _ in declared})


def test_measures_of_the_catalogue_are_not_stored(own: dict[str, Any]) -> None:
    assert [one["name"] for one in measures_to_store(tiny(**own))] == ["trace", "layer_norms"]
    assert measures_to_store(tiny()) == []
    assert from_json(to_json(Measure(name="a", title="a", means="A.", null=0.5))).null == 0.5
