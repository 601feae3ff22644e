"""Tests of `fedmem/apps/watch.py`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from fedmem import Watch
from fedmem.engines._flower import in_process
from tests.observation.observed_helpers import Net, data_of


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def test_watch_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match="references for 'other'"):
        Watch(model=Net(), examples={"mine": data_of(0)}, references={"other": data_of(1)[0]})
    with pytest.raises(ValueError, match="3 inputs and 2 targets"):
        Watch(model=Net(), examples={"mine": (np.zeros((3, 6)), [0, 1])})
    with pytest.raises(ValueError, match="every must be at least 1"):
        Watch(model=Net(), examples={"mine": data_of(0)}, every=0)
