"""Which labels a gradient was made of, read off the bias of the last layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedmem.errors import RunError
from fedmem.types import FloatArray, IntArray, Params


def last_bias(gradient: Params, num_classes: int) -> FloatArray:
    """(C,) gradient of the classifier's bias: the last parameter that is called `bias` and has one entry a class."""
    found = [
        value
        for name, value in gradient.items()
        if name.rpartition(".")[2] == "bias" and tuple(value.shape) == (num_classes,)
    ]
    if not found:
        raise RunError(
            f"labels cannot be inferred: none of the parameters {', '.join(gradient)} is a bias of {num_classes} "
            "entries; give the model's last layer a bias"
        )
    return np.asarray(found[-1].detach().double().cpu().numpy(), dtype=np.float64)


def infer_labels(bias: Sequence[float] | FloatArray, num_images: int) -> IntArray:
    """The sorted labels of `num_images` examples from the gradient of the classifier's bias.

    Under cross-entropy the bias gradient of one example is `p - onehot(y)`: its only negative entry is the label
    (Zhao et al., 2020). Of a batch it is the mean: a negative class is present, and found once to begin with. The
    impact of one example is the sum of the negative entries over n, times 1 + 1/C for what p has already taken back;
    it is taken off every class found, and the other labels are found one at a time, each where the least is left
    (Wainakh et al., 2022). Exact for one example; of repeated labels some are misplaced.

    - A positive factor changes nothing, so an update divided by the wrong learning rate serves.
    - If more classes are negative than there are examples, the most negative ones are taken.
    - Without a negative entry (no information) the labels repeat the class of the smallest entry.

    >>> infer_labels([0.2, -0.5, 0.3], 1).tolist()
    [1]
    >>> infer_labels([-0.6, -0.2, 0.5, 0.3], 4).tolist()
    [0, 0, 0, 1]
    """
    rest = np.nan_to_num(np.asarray(bias, dtype=np.float64))
    found = [int(label) for label in np.argsort(rest, kind="stable") if rest[label] < 0][:num_images]
    impact = rest[rest < 0].sum() / num_images * (1 + 1 / len(rest))
    rest[found] -= impact
    while len(found) < num_images:
        smallest = int(rest.argmin())
        found.append(smallest)
        rest[smallest] -= impact
    return np.sort(np.asarray(found, dtype=np.int64))
