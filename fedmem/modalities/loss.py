"""The loss of an example: of its class, of what is asked at each of its places, or of its own log-density.

The number of outputs decides. Two or more for one target are the logits of classes. A single one is no class among
others: it is the log-density that the model gives to the input, and its loss is minus that. Data without labels have
one output (`Modality.densities`), and no other data have; `contracts.validation` refuses others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

UNASKED = -1
"""A target where nothing is asked."""

LANES = 16
"""Numbers in the widest vector of a processor."""


def example_losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """(n,) nats: of each example the mean of -log p over all that is asked about it, 0 where nothing is.

    Outputs are logits (n, C) for targets (n,), or (n, L, C) for targets (n, L), -1 where nothing is asked. Outputs
    (n, 1) for targets (n,) are log-densities, and losses are minus them.

    >>> import torch
    >>> example_losses(torch.zeros(1, 3, 4), torch.tensor([[2, 0, -1]])).exp().tolist()
    [4.0]
    >>> example_losses(torch.tensor([[-20.0]]), torch.tensor([0])).tolist()
    [20.0]
    """
    from torch.nn import functional as F

    if are_densities(outputs, targets.ndim):
        return -outputs[:, 0]
    if targets.ndim == 1:
        return F.cross_entropy(outputs, targets, reduction="none")
    token_losses = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=UNASKED, reduction="none")
    return token_losses.view(targets.shape).sum(dim=1) / (targets != UNASKED).sum(dim=1).clamp(min=1)


def are_densities(outputs: Tensor | NDArray[Any], target_axes: int) -> bool:
    """Whether outputs (..., n, 1) are log-densities, one of each example, where targets have so many axes.

    >>> are_densities(np.zeros((3, 1)), 1), are_densities(np.zeros((3, 2)), 1), are_densities(np.zeros((3, 5, 1)), 2)
    (True, False, False)
    """
    return target_axes == 1 and outputs.shape[-1] == 1


def mean_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean over examples, each of which counts the same, however much is asked about it.

    >>> import torch
    >>> one, two = torch.zeros(2, 2, 4), torch.tensor([[1, 1], [1, -1]])
    >>> mean_loss(one, two).exp().tolist()
    4.0
    """
    from torch.nn import functional as F

    if targets.ndim > 1 or are_densities(outputs, targets.ndim):
        return example_losses(outputs, targets).mean()
    return F.cross_entropy(outputs, targets)


def log_likelihoods(outputs: Tensor, targets: Tensor) -> Tensor:
    """(T, B) minus the losses of B examples under each of T models, from outputs (T, B, C), or (T, B, L, C).

    Its result for one model depends on no other, to the last bit.
    """
    import torch
    from torch.nn import functional as F

    if targets.ndim > 2:
        log_p = F.log_softmax(outputs, dim=3).gather(3, targets.clamp(min=0).unsqueeze(3)).squeeze(3)
        is_asked = (targets != UNASKED).to(log_p.dtype)
        return (log_p * is_asked).sum(dim=2) / is_asked.sum(dim=2).clamp(min=1)
    if are_densities(outputs, targets.ndim - 1):
        return outputs[..., 0]
    clients, rows, classes = outputs.shape
    if classes >= LANES:
        return F.log_softmax(outputs, dim=2).gather(2, targets.unsqueeze(2)).squeeze(2)
    # Classes too few to fill a vector of the processor are slow, so vectors go over the rows of all clients. They are
    # all full, since what is left over is computed otherwise, and would depend on how many clients there are.
    count = clients * rows
    flat = outputs.reshape(count, classes).T
    full = torch.cat((flat, flat.new_zeros(classes, -count % LANES)), dim=1)
    return F.log_softmax(full, dim=0)[:, :count].gather(0, targets.reshape(1, count)).view(clients, rows)


def over_what_is_asked(values: NDArray[Any], targets: NDArray[np.int64]) -> NDArray[Any]:
    """(..., n) values of examples with one target (n,); of those with several (n, L), the means over what is asked.

    The values of those are (..., n, L), one for each place. NaN where nothing is asked.

    >>> over_what_is_asked(np.array([[[1.0, 0.0, 1.0]]]), np.array([[5, 5, -1]])).tolist()
    [[0.5]]
    """
    if targets.ndim == 1:
        return values
    is_asked = targets != UNASKED
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(is_asked, values, 0.0).sum(axis=-1) / is_asked.sum(axis=-1))


def lowest_of_what_is_asked(values: NDArray[Any], targets: NDArray[np.int64], k: float) -> NDArray[Any]:
    """(T, n) the means of the lowest share `k` of the values (T, n, L) that are asked for, at least of one.

    NaN where nothing is asked, and where any of these values is NaN. Values (T, n) of single labels are their means.

    >>> lowest_of_what_is_asked(np.array([[[-4.0, -1.0, -2.0, -9.0]]]), np.array([[5, 5, 5, -1]]), 0.7).tolist()
    [[-3.0]]
    """
    if targets.ndim == 1:
        return values
    is_asked = targets != UNASKED
    asked = is_asked.sum(axis=1)
    # a product that should be whole may come out a bit below
    count = np.maximum(1, np.floor(k * asked + 1e-9).astype(np.int64))
    # NaN before all others, so that it counts
    keys = np.where(is_asked, np.where(np.isnan(values), -np.inf, values), np.inf)
    order = np.argsort(keys, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    is_counted = np.arange(values.shape[-1]) < count[:, None]
    means = np.where(is_counted, ordered, 0.0).sum(axis=-1) / count
    return np.asarray(np.where(asked > 0, means, np.nan))
