"""What tests of adaptive share."""

from __future__ import annotations

from typing import Any

from fedmem.strategies._rule import ALONE


class Stock:
    """A class of Flower's in the place of one of ours."""

    def __init__(self, kind: type, **fields: Any) -> None:
        self._kind, self._fields = kind, fields

    def make(self, cohort_size: int) -> Any:
        return self._kind(**ALONE, **self._fields)
