"""Tests of `fedmem/probes/_pieces.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.probes import _pieces
from fedmem.probes._pieces import pieces


@pytest.mark.parametrize("classes", [1, 3, 7, 40])
def test_pieces_cover_every_pair_once_within_the_limit(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pieces, "LOGITS", 20)
    seen = np.zeros((5, 13), int)
    for models, rows in pieces(5, 13, classes):
        seen[models, rows] += 1
        size = seen[models, rows].size
        assert size * classes <= 20 or size == 1
    assert (seen == 1).all()


def test_cuts_of_rows_do_not_depend_on_the_number_of_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pieces, "LOGITS", 20)
    cuts = [{(part.start, part.stop) for _, part in pieces(models, 13, 4)} for models in (1, 2, 9)]
    assert cuts[0] == cuts[1] == cuts[2] == {(0, 5), (5, 10), (10, 13)}
