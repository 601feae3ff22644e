"""What tests of membership share."""

from __future__ import annotations

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.estimation.roc import auc


def everything(scores: FloatArray, is_in: BoolArray) -> float:
    return auc(scores, is_in).value
