"""Tests of `fedmem/probes/_measures.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmem.errors import RunError
from fedmem.probes.leakage import Leakage
from tests.lab import Lab
from tests.probes.leakage_helpers import QUICK, Answers


@pytest.mark.parametrize("images", [np.zeros((0, 1, 8, 8)), np.full((2, 1, 8, 8), np.nan)])
def test_an_attack_that_returns_nonsense_is_refused(images: NDArray[Any]) -> None:
    lab = Lab()
    with pytest.raises(RunError, match="view message must return finite images"):
        Leakage(attack=Answers(images.astype(np.float32))).observe(lab.local(), lab)


def test_label_accuracy_stands_beside_the_uniform_guess() -> None:
    lab = Lab()
    found = Leakage(attack=QUICK).observe(lab.local(runs=(0,), clients=(0,)), lab)
    (guess,) = [r.value for _, r in found if r.metric == "label_accuracy.guess" and r.labels.get("view") == "message"]
    truth = lab.federation.store.targets[lab.rows(0, 0)]
    # fifteen images: two of each of the first five classes, one of each other
    counts = np.bincount(truth, minlength=10)
    assert guess == np.minimum(counts, [2] * 5 + [1] * 5).sum() / 15
    assert guess < 1
