"""Names of series and files hold nothing that a tool refuses or a file system takes for a path."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmem.contracts.export import Scalar, Target, TrackingTarget, clean_piece, series_name
from fedmem.contracts.measurement import Labels
from fedmem.exports import target_names
from fedmem.sharing.targets import target_of


@given(st.text(max_size=200))
def test_a_clean_piece_is_one_harmless_name(text: str) -> None:
    piece = clean_piece(text)
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", piece)
    assert piece.strip(".")


def test_series_of_other_places_have_other_names() -> None:
    lira, loss = Labels.of(attack="lira", fpr=0.1), Labels.of(attack="loss")
    names = [
        series_name("tpr", labels, level, kind)
        for labels in (lira, loss)
        for level in ("local", "global")
        for kind in ("a", "")
    ]
    assert len(set(names)) == len(names)
    assert names[0] == "tpr/attack-lira/fpr-0.1/local/a"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_series_takes_no_undefined_point(value: float) -> None:
    with pytest.raises(ValueError, match="leaves out"):
        Scalar(name="auc", step=1, value=value)


@pytest.mark.parametrize("name", target_names())
def test_each_file_of_exports_is_a_target(name: str) -> None:
    target: Target = target_of(name)
    assert target.write.__doc__
    assert "{folder}" in target.open_with
    assert bool(target.extra) == bool(target.package)
    if isinstance(target, TrackingTarget):
        assert target.default_place
