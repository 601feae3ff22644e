"""Tests of `fedmem/defences/clip.py`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.defences.clip import Clip
from tests.defences.defences_helpers import norm, update


@settings(max_examples=50, deadline=None)
@given(bound=st.floats(1e-3, 1e3), scale=st.floats(1e-6, 1e6))
def test_a_clipped_update_has_norm_s_or_is_unchanged(bound: float, scale: float) -> None:
    given = update(scale=scale)
    found = Clip(norm=bound).apply(given, {})
    if norm(given) > bound * (1 + 1e-6):
        assert norm(found) == pytest.approx(bound, rel=1e-6)
        for name, value in given.items():
            torch.testing.assert_close(found[name] * (norm(given) / bound), value, rtol=1e-5, atol=0)
    elif norm(given) < bound * (1 - 1e-6):
        assert all(torch.equal(found[name], given[name]) for name in given)


def test_the_norm_is_over_all_parameters_and_does_not_overflow() -> None:
    found = Clip(norm=5.0).apply({"a": torch.full((9,), 1e30), "b": torch.full((16,), -1e30)}, {})
    assert found["a"].tolist() == pytest.approx([1.0] * 9)
    assert found["b"].tolist() == pytest.approx([-1.0] * 16)
