"""Answers of models on rows: correctness and loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.probe import Context
from fedmem.modalities.loss import are_densities, over_what_is_asked
from fedmem.modalities.scores import is_right
from fedmem.probes._pieces import pieces


def answers(models: Sequence[Params], inputs: NDArray[np.float32], targets: IntArray, context: Context) -> FloatArray:
    """(2, T, n): whether each of T models is right about each of n rows (0 or 1), and its loss in nats.

    A row is right where the logit of its label is strictly larger than every other. For texts both values are means
    over the places that are asked for. Of log-densities, the loss is minus them, and nothing is right or wrong: NaN. A
    model whose logits are not finite has diverged, and both values are NaN.
    """
    import torch

    values = np.empty((2, len(models), len(inputs)))
    outputs = context.federation.num_classes * math.prod(targets.shape[1:])
    for some, part in pieces(len(models), len(inputs), outputs):
        logits = context.logits(models[some], inputs[part])
        if are_densities(logits, targets.ndim):
            values[0, some, part] = np.nan
            values[1, some, part] = -logits[..., 0]
            continue
        target_logits = np.take_along_axis(logits, targets[None, part, ..., None].clip(min=0), axis=-1)
        with np.errstate(invalid="ignore"):
            loss = torch.from_numpy(logits - target_logits).logsumexp(dim=-1).numpy()
        correct = np.where(np.isnan(loss), np.nan, is_right(logits, targets[part]))
        values[0, some, part] = over_what_is_asked(correct, targets[part])
        values[1, some, part] = over_what_is_asked(loss, targets[part])
    return values
