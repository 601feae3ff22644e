"""What tests of exposure skewnormal share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import skewnorm

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import Models, RankEvidence, View
from fedmem.contracts.evidence import ReferenceEvidence
from fedmem.estimators._skew_normal import SkewNormal, positions
from tests.banks import make_view


def law(location: float, scale: float, shape: float, size: int = 1) -> SkewNormal:
    return SkewNormal(*(np.full(size, float(value)) for value in (location, scale, shape)))


def exact_quantiles(shape: float, location: float, scale: float, count: int) -> FloatArray:
    out: FloatArray = skewnorm.ppf((positions(count) + 0.625) / (count + 0.25), shape, location, scale)
    return out


def canaries(
    loss: FloatArray, is_in: BoolArray, quantiles: FloatArray, count: int, rank: FloatArray | None = None
) -> View:
    """A view of canaries with these losses (R, m), all ranked among references with these quantiles (R, 256)."""
    runs, m = loss.shape
    rank = np.ones(loss.shape) if rank is None else rank
    view = make_view(-np.log(np.expm1(loss)), is_in, rank=rank, references=count, round_number=None)
    block = ReferenceEvidence(
        round=9,
        level="global",
        family="random_pattern",
        run=np.arange(runs, dtype=np.int32),
        client=np.full(runs, -1, np.int32),
        subjects=np.arange(m),
        count=count,
        less=np.zeros(loss.shape, np.int32),
        ties=np.zeros(loss.shape, np.int32),
        labels=np.array([0]),
        quantiles=quantiles[:, None].astype(np.float32),
    )
    models = Models(runs=runs, round=np.full(1, 9), client=np.full(1, -1), of=np.zeros((1, m), np.int64))
    return replace(view, ranked=RankEvidence(models=models, blocks=(block,)))
