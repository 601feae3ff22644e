"""Random labels and random inputs: another data set in which nothing can be learnt from some or all rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.data import Dataset, DatasetLoader, Examples
from fedmem.datasets.digits import Digits
from fedmem.errors import ComponentError
from fedmem.modalities.images import Images


@dataclass(frozen=True, kw_only=True)
class Randomised:
    """Another data set with random labels or random inputs, which a network can fit only by memorising.

    Exactly round(`labels` n) of the n training rows, chosen at random, get labels that are uniform over all classes.
    So 1 in C of them is right on average. The test set keeps its labels, so accuracy on it is accuracy on true labels.
    All runs have the same labels. Rows of all purposes are chosen alike: those of clients, audit examples, replacement
    rows and the population.

    Fields

    - `base`: the data set whose labels and inputs are changed.
    - `labels`: the share of training rows with random labels.
    - `inputs`: `kept`, `shuffled`, `shuffled_each` or `noise`. `shuffled` is one order of pixels for all images, those
      of the test set too. `shuffled_each` is an order of its own for each training image. `noise` is Gaussian, with
      the mean and standard deviation of all training pixels, cut to [0, 1].

    The column `random label` is `yes` or `no`, and `true class` has the original labels. No model
    is given these columns.

    Guarantees:

    - draws of `base` are unchanged, so that training and test set have the rows that they have in `base`;
    - with a larger share, all rows with random labels keep the labels that they had with a smaller one;
    - with share 0 and kept inputs, rows are those of `base`.

    Errors: `ComponentError` for data with several targets a row, and for random inputs of data that are no images.

    >>> data = Randomised(labels=0.5).load(np.random.default_rng(0))
    >>> int((data.columns["random label"] == "yes").sum()), len(data.train)
    (750, 1500)

    Reference: Zhang, Bengio, Hardt, Recht and Vinyals (2017), Understanding deep learning requires rethinking
    generalization.
    """

    reads_fetched_data: ClassVar[bool] = False

    base: DatasetLoader = Digits()  # noqa: RUF009
    labels: Annotated[float, annotated_types.Ge(0), annotated_types.Le(1)] = 1.0
    inputs: Literal["kept", "shuffled", "shuffled_each", "noise"] = "kept"

    def load(self, rng: np.random.Generator) -> Dataset:
        """Load the base, and draw its labels and inputs."""
        data = self.base.load(rng)
        if data.train.several_targets:
            raise ComponentError(
                "dataset.base", "randomised needs one label a row, but a row of these data has several targets"
            )
        if self.inputs != "kept" and not isinstance(data.modality, Images):
            raise ComponentError(
                "dataset.inputs",
                f"{self.inputs} is for images, but the data are {data.modality.kind}; use inputs: kept, or other data",
            )
        count, true = len(data.train), data.train.targets
        # all are drawn whatever the share is, so that a larger one changes more rows and no label twice
        order, labels = rng.permutation(count), rng.integers(data.num_classes, size=count).astype(true.dtype)
        is_random = np.zeros(count, dtype=bool)
        is_random[order[: round(self.labels * count)]] = True
        train, test = self._with_inputs(data, rng)
        columns: dict[str, NDArray[Any]] = dict(data.columns)
        names = np.array(data.class_names, dtype=object) if data.class_names else np.arange(data.num_classes)
        columns |= {"random label": np.where(is_random, "yes", "no"), "true class": names[true]}
        return replace(
            data,
            train=replace(train, targets=np.where(is_random, labels, true)),
            test=test,
            columns=columns,
            dropped=tuple(name for name in data.dropped if name not in columns),
            decisions=(
                *data.decisions,
                f"{is_random.sum()} of {count} training rows have random labels, of which "
                f"{int((labels == true)[is_random].sum())} are right by chance",
            ),
        )

    def _with_inputs(self, data: Dataset, rng: np.random.Generator) -> tuple[Examples, Examples]:
        """The training and the test rows with these inputs, and the labels that they had."""
        train, test = data.train, data.test
        if self.inputs == "kept":
            return train, test
        rows = train.inputs.reshape(len(train), -1)
        if self.inputs == "shuffled":
            order = rng.permutation(rows.shape[1])
            shown = test.inputs.reshape(len(test), -1)[:, order].reshape(test.inputs.shape)
            return replace(train, inputs=rows[:, order].reshape(train.inputs.shape)), replace(test, inputs=shown)
        if self.inputs == "shuffled_each":
            made = rng.permuted(rows, axis=1)
        else:
            wide = rows.astype(np.float64)
            made = np.clip(rng.normal(wide.mean(), wide.std(), rows.shape), 0, 1).astype(rows.dtype)
        return replace(train, inputs=made.reshape(train.inputs.shape)), test
