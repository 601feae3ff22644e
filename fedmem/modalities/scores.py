"""Scores of examples from logits: margin, loss, and whether a model is right. The only place that decides this.

A model is right about a target where its logit is strictly larger than every other. So a tie is not right, and neither
is a comparison with NaN: NaN is larger than nothing, and nothing is larger than NaN.

A model of densities has one output for each example, its log-density (`loss.are_densities`). That is the margin, and
minus it the loss. Such a model is neither right nor wrong: `answers` gives NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.modalities.loss import UNASKED, are_densities, over_what_is_asked


def margins(logits: FloatArray, classes: IntArray | None = None) -> FloatArray:
    """Margins of all classes, or of `classes`: `log p_c - log sum_{d != c} p_d`; logits (..., C) -> (..., C) float64.

    With L the log of the sum of all powers, that is `z_c - L - log(1 - exp(z_c - L))`, in which nothing cancels unless
    c is the largest. For the largest it is `z_c` minus the log of the sum of the others, formed without it. -inf ..
    inf, higher means surer of c; NaN logits give NaN. Of log-densities (..., 1) these are the log-densities.

    >>> margins(np.log(np.array([[0.75, 0.125, 0.125]]))).round(6).tolist()
    [[1.098612, -1.94591, -1.94591]]
    """
    import torch

    if are_densities(logits, 1):
        return np.array(logits, dtype=np.float64)
    z = torch.from_numpy(np.array(logits, dtype=np.float64))
    largest = z.argmax(dim=-1, keepdim=True)
    others = z.scatter(-1, largest, -torch.inf).logsumexp(dim=-1, keepdim=True)
    everything = torch.arange(z.shape[-1])
    class_numbers = everything if classes is None else torch.from_numpy(classes)
    share = (z if torch.equal(class_numbers, everything) else z.index_select(-1, class_numbers)) - z.logsumexp(
        dim=-1, keepdim=True
    )
    among_others = z.gather(-1, largest) - others
    return np.asarray(torch.where(class_numbers == largest, among_others, share - torch.log1p(-share.exp())).numpy())


def margins_of(logits: FloatArray, labels: IntArray) -> FloatArray:
    """Margins of one class each: logits (..., n, C), labels (n,) -> (..., n), to the last bit as `margins` gives them.

    >>> margins_of(np.zeros((1, 2, 5)), np.array([0, 3])).round(6).tolist()
    [[-1.386294, -1.386294]]
    """
    return answers(logits, labels)[0]


def sequences(margin: FloatArray, targets: IntArray) -> FloatArray:
    """(..., n) the margin of each passage as a whole, from those of its places (..., n, L).

    With p the geometric mean of the probabilities of the targets (n, L) that are asked, that is `log p - log(1 - p)`.
    Its loss, `losses` of this, is therefore the mean over these places in nats. The probability of a token is
    exp(-loss). Both are exact where every place is nearly sure. NaN where nothing is asked.

    >>> places = np.log([[1.0, 3.0, 9.0]])
    >>> losses(sequences(places, np.array([[4, 7, -1]]))).round(6).tolist() == [round(np.log(2 * 4 / 3) / 2, 6)]
    True
    """
    loss = over_what_is_asked(losses(margin), targets)
    with np.errstate(divide="ignore"):
        return np.asarray(-loss - np.log(-np.expm1(-loss)))


def is_right(logits: NDArray[np.floating], targets: IntArray) -> BoolArray:
    """Whether the logit of each target is strictly larger than every other: logits (..., n, C), targets (n,).

    False for ties, for a comparison with NaN, where nothing is asked (-1), and for log-densities.

    >>> is_right(np.array([[1.0, 0.0], [1.0, 1.0], [1.0, np.nan]]), np.array([0, 0, 0])).tolist()
    [True, False, False]
    """
    if are_densities(logits, targets.ndim):
        return np.zeros(logits.shape[:-1], dtype=np.bool_)
    label = np.where(targets == UNASKED, 0, targets)
    target_logit = np.take_along_axis(logits, np.broadcast_to(label[..., None], (*logits.shape[:-1], 1)), axis=-1)
    return np.asarray(_is_right_from_margin(logits, target_logit) & (targets != UNASKED))


def answers(logits: FloatArray, targets: IntArray) -> tuple[FloatArray, BoolArray | FloatArray]:
    """(..., n) the margin of each example and whether the model is right.

    With several targets (n, L), the margin of the whole (`sequences`) and the share of targets that are right, float64.
    Of log-densities (..., n, 1) the log-density and NaN.

    >>> margin, correct = answers(np.zeros((1, 2, 4)), np.array([[3, 1]]))
    >>> margin.round(4).tolist(), correct.tolist()
    ([-1.0986], [0.0])
    >>> answers(np.array([[[-20.0]]]), np.array([0]))[0].tolist()
    [[-20.0]]
    """
    if are_densities(logits, targets.ndim):
        margin = np.array(logits[..., 0], dtype=np.float64)
        return margin, np.full(margin.shape, np.nan)
    margin, correct = _of_places(logits, targets)
    if targets.ndim == 1:
        return margin, correct
    return sequences(margin, targets), over_what_is_asked(correct, targets)


def _of_places(logits: FloatArray, targets: IntArray) -> tuple[FloatArray, BoolArray]:
    """Margins of the targets, and whether each is right.

    Each margin needs one sum, of all powers or of the others, so that half of the work of `margins` is enough.
    """
    import torch

    z = torch.from_numpy(np.array(logits, dtype=np.float64))
    # any class stands where nothing is asked
    label = torch.from_numpy(np.where(targets == UNASKED, 0, targets))[..., None].expand(*z.shape[:-1], 1)
    target_logit = z.gather(-1, label)
    correct = _is_right_from_margin(z, target_logit)
    first = z.argmax(dim=-1, keepdim=True) == label
    z.scatter_(-1, label, torch.where(first, -torch.inf, target_logit))
    among = target_logit - z.logsumexp(dim=-1, keepdim=True)
    margin = torch.where(first, among, among - torch.log1p(-among.exp()))
    return np.asarray(margin[..., 0].numpy()), np.asarray(correct.numpy())


def _is_right_from_margin(z: Any, target_logit: Any) -> Any:
    """Whether each target's logit (..., 1) is larger than all others (..., C): arrays of numpy or tensors of torch."""
    return (target_logit > z).sum(-1) == z.shape[-1] - 1


def losses(margin: FloatArray) -> FloatArray:
    """Cross-entropy `-log p_y = log(1 + exp(-margin))` in nats, exact for any margin.

    >>> losses(np.array([0.0, 40.0])).tolist() == [float(np.log(2.0)), float(np.log1p(np.exp(-40.0)))]
    True
    """
    with np.errstate(invalid="ignore"):
        return np.logaddexp(0.0, -margin)


def round_margins(margin: FloatArray) -> NDArray[Any]:
    """Margins in float32. Finite ones stay finite: those beyond its range become its largest number.

    >>> round_margins(np.array([1e300, -np.inf, np.nan, 1.0])).tolist()
    [3.4028234663852886e+38, -inf, nan, 1.0]
    """
    limit = float(np.finfo(np.float32).max)
    return np.where(np.isinf(margin), margin, np.clip(margin, -limit, limit)).astype(np.float32)


def losses_of_stored(margin: NDArray[Any], densities: bool = False) -> FloatArray:
    """Losses of margins, in their precision. Those of margins in float32 are formed in float64 and rounded.

    Where margins are log-densities, losses are minus them.

    A loss is near 0 where an example is fitted well. There it is exp(-margin), whose relative error in float32 is about
    6e-8 times the margin. Losses below 1e-7 do not vanish, since no probability near 1 is formed.

    >>> losses_of_stored(np.array([50.0], np.float32))
    array([1.9287499e-22], dtype=float32)
    """
    if densities:
        return np.asarray(-margin)
    if margin.dtype == np.float64:
        return losses(margin)
    return np.asarray(losses(margin.astype(np.float64)).astype(margin.dtype))
