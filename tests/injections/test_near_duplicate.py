"""Tests of `fedmem/injections/near_duplicate.py`."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from fedmem.contracts.data import ClientData, Examples
from fedmem.contracts.reserve import Reserve
from fedmem.errors import ComponentError
from fedmem.injections.near_duplicate import NearDuplicate
from fedmem.modalities.tables import Tables
from tests.injections.atypical_helpers import ROWS, SPACE, plan


def test_near_copies_are_near_and_of_their_own_original() -> None:
    injected = plan(NearDuplicate(per_client=2, multiplicity=4, strength=0.01, copies=2))
    extra, slots = injected.extra, injected.copy_index
    assert extra is not None
    assert slots is not None
    assert injected.copies.tolist() == [8] * 6
    for j, group in enumerate(slots.reshape(6, 2, 4)):
        np.testing.assert_array_equal(group[0], group[1])
        assert group[0, 0] == -1
        near = extra.take(group[0, 1:])
        assert set(near.targets.tolist()) == {int(injected.examples.targets[j])}
        errors = np.abs(near.inputs - injected.examples.inputs[j]).reshape(3, -1).mean(1)
        assert ((errors > 0) & (errors < 0.02)).all()
    assert (extra.ids < 0).all()


def test_shift_moves_the_image_by_whole_pixels() -> None:
    injected = plan(NearDuplicate(change="shift", strength=0.25, per_client=10))
    assert injected.extra is not None
    seen = set()
    for i, moved in enumerate(injected.extra.inputs[:, 0]):
        row = np.pad(injected.examples.inputs[i // 3, 0], 2, mode="edge")
        fits = [
            (dy, dx)
            for dy, dx in product(range(-2, 3), repeat=2)
            if np.array_equal(moved, row[2 - dy : 10 - dy, 2 - dx : 10 - dx])
        ]
        assert len(fits) == 1
        assert fits != [(0, 0)]
        seen |= set(fits)
    assert len(seen) > 15


def test_noise_on_a_table_leaves_categories_alone() -> None:
    blocks = (1,) * 10 + (54,)
    flat = Examples(inputs=ROWS.inputs.reshape(700, 64), targets=ROWS.targets, ids=ROWS.ids)
    where = replace(
        SPACE, mean=flat.inputs.mean(0), low=flat.inputs.min(0), high=flat.inputs.max(0), modality=Tables(blocks=blocks)
    )
    base = [ClientData(client=0, examples=flat.take(np.arange(50)))]
    found = NearDuplicate().plan(base, Reserve(flat.take(np.arange(50, 90))), where, np.random.default_rng(0))
    assert found.extra is not None
    originals = np.repeat(found.examples.inputs, 3, axis=0)
    np.testing.assert_array_equal(found.extra.inputs[:, 10:], originals[:, 10:])
    assert (found.extra.inputs[:, :10] != originals[:, :10]).mean() > 0.9
    with pytest.raises(ComponentError, match="categories only"):
        NearDuplicate().plan(
            base,
            Reserve(flat.take(np.arange(50, 90))),
            replace(where, modality=Tables(blocks=(30, 34))),
            np.random.default_rng(0),
        )
