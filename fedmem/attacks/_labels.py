"""Which labels a gradient was made of, read off the bias of the last layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.errors import RunError


def last_bias_name(params: Params, num_classes: int) -> str | None:
    """The classifier's bias: the last parameter that is called `bias` and has one entry a class; None without any."""
    names = [n for n, v in params.items() if n.rpartition(".")[2] == "bias" and tuple(v.shape) == (num_classes,)]
    return names[-1] if names else None


def last_bias(gradient: Params, num_classes: int) -> FloatArray:
    """(C,) gradient of the classifier's bias."""
    name = last_bias_name(gradient, num_classes)
    if name is None:
        raise RunError(
            f"labels cannot be inferred: none of the parameters {', '.join(gradient)} is a bias of {num_classes} "
            "entries; give the model's last layer a bias"
        )
    return np.asarray(gradient[name].detach().double().cpu().numpy(), dtype=np.float64)


def infer_labels(bias: Sequence[float] | FloatArray, num_images: int) -> IntArray:
    """The sorted labels of `num_images` examples from the gradient g of the classifier's bias.

    Under cross-entropy the gradient of one example is `p - onehot(y)`: its only negative entry is the label (Zhao et
    al., 2020). The gradient of a batch of n is the mean, so that `n_c = n (p_c - g_c)` with the mean prediction p on
    the batch. The mean prediction is not known, and is assumed to be uniform, 1/C. A class with a negative entry is
    certainly present, and is counted once at first. The other labels are added one at a time, each to the class that is
    furthest below n_c.

    Exact for one example, and for any labels where predictions are uniform. Those of an untrained model nearly are. Of
    20 batches of 16, 32 and 64 digits each, all, .97 and .95 of the labels were right. A trained model predicts its
    batch well. Then g is small, and the labels come near to the uniform guess, which `guess_labels` gives for
    comparison. Shares of the labels found from 40 messages of clients each after 1, 5, 10 and 40 rounds (digits,
    batches of 57 on average):

    - skewed clients (alpha 0.5, 3 epochs): .73, .63, .63, .59; guess .61, .59, .61, .58. Subtracting the mean impact of
      one example repeatedly (Wainakh et al., 2022), which knows no scale: .77, .66, .52, .51;
    - even clients (alpha 5, 1 epoch): .93, .89, .85, .85; guess .84, .83, .83, .84; impact .51, .50, .47, .45.

    The mean prediction on noise or on the population in place of 1/C was no better.

    - If more classes are negative than there are examples, the most negative ones are taken.
    - Without information (no entry is negative, or none is a number) the labels are the uniform guess.

    >>> infer_labels([0.2, -0.5, 0.3], 1).tolist()
    [1]
    >>> infer_labels([-0.6, -0.2, 0.5, 0.3], 4).tolist()
    [0, 0, 0, 1]
    """
    slope = np.nan_to_num(np.asarray(bias, dtype=np.float64))
    order = np.argsort(slope, kind="stable")
    present = order[slope[order] < 0]
    if not len(present):
        return guess_labels(num_images, len(slope))
    shares = np.clip(1 / len(slope) - slope, 0.0, None)
    expected_counts = num_images * shares / shares.sum()
    counts = np.zeros(len(slope), dtype=np.int64)
    counts[present[:num_images]] = 1
    while counts.sum() < num_images:
        counts[(expected_counts - counts).argmax()] += 1
    return np.repeat(np.arange(len(slope)), counts)


def guess_labels(num_images: int, num_classes: int) -> IntArray:
    """The sorted labels that somebody without a gradient would name: equally many of each class, up to one.

    >>> guess_labels(5, 3).tolist()
    [0, 0, 1, 1, 2]
    """
    return np.sort(np.arange(num_images, dtype=np.int64) % num_classes)
