"""Tests of `fedmem/defences/prune.py`."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.defences.prune import Prune
from tests.defences.defences_helpers import update


@settings(max_examples=50, deadline=None)
@given(share=st.floats(0, 1))
def test_the_smallest_share_of_each_layer_is_cut(share: float) -> None:
    given = update()
    found = Prune(share=share).apply(given, {})
    for name, value in given.items():
        cut = found[name] == 0
        assert int(cut.sum()) == int(np.floor(share * value.numel() + 1e-9))
        assert torch.equal(found[name][~cut], value[~cut])
        if cut.any() and not cut.all():
            assert value[cut].abs().max() <= value[~cut].abs().min()


def test_within_the_model_small_layers_lose_more() -> None:
    given = update()
    cut = {name: int((v == 0).sum()) for name, v in Prune(share=0.5, within="model").apply(given, {}).items()}
    magnitudes = torch.cat([v.reshape(-1) for v in given.values()]).abs()
    border = magnitudes.sort().values[115]
    assert cut == {name: int((v.abs() < border).sum()) for name, v in given.items()}
    assert sum(cut.values()) == 115
    assert cut["a"] > 100
    assert cut["b"] < 15


def test_pruned_count_is_exact_and_ties_go_in_order() -> None:
    flat = {"w": torch.tensor([1.0, -1.0, 1.0, 2.0])}
    assert Prune(share=0.5).apply(flat, {})["w"].tolist() == [0.0, 0.0, 1.0, 2.0]
    many = {"w": torch.arange(1.0, 101.0)}
    assert int((Prune(share=0.29).apply(many, {})["w"] == 0).sum()) == 29
