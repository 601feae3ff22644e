"""Images of another data set without their labels, for models of densities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import annotated_types
import numpy as np

from fedmem.contracts.data import Dataset, DatasetLoader, Examples, ReadsFiles, dataset_declaration
from fedmem.contracts.families import kind_of
from fedmem.errors import ComponentError
from fedmem.modalities.images import Images
from fedmem.modalities.unlabelled_images import UnlabelledImages


@dataclass(frozen=True, kw_only=True)
class Unlabelled:
    """The images of a data set, each without its label, so that models learn the density of images.

    Inputs are those of the data set, or with `threshold` 1 where a pixel is above it and 0 elsewhere. Targets are
    zeros, since nothing is asked but the log-density. Rows, ids, test set and natural owners stay as they are.

    Fields

    - `dataset`: the data set of images, as a mapping with `kind`.
    - `threshold`: the level above which a pixel is 1. With null, pixels stay numbers in [0, 1], which models that
      declare `binary_inputs` refuse.

    Errors: `ComponentError` for data that are no images, or that have no labels already.

    >>> from fedmem.datasets.digits import Digits
    >>> data = Unlabelled(dataset=Digits()).load(np.random.default_rng(0))
    >>> data.num_classes, np.unique(data.train.inputs).tolist(), np.unique(data.train.targets).tolist()
    (1, [0.0, 1.0], [0])
    """

    dataset: DatasetLoader
    threshold: Annotated[float, annotated_types.Ge(0), annotated_types.Lt(1)] | None = 0.5

    @property
    def reads_fetched_data(self) -> bool:
        """Whether the data set reads files that have to be fetched."""
        return dataset_declaration(self.dataset).reads_fetched_data

    def input_files(self) -> Sequence[Path]:
        """The files of the data set."""
        return self.dataset.input_files() if isinstance(self.dataset, ReadsFiles) else ()

    def load(self, rng: np.random.Generator) -> Dataset:
        """Load the data set, and leave its labels out."""
        data = self.dataset.load(rng)
        if not isinstance(data.modality, Images) or data.modality.densities:
            raise ComponentError(
                "dataset.dataset",
                f"{kind_of(self.dataset)} has {data.modality.kind}, and unlabelled reads images with labels; choose "
                "digits, mnist5k, fashion_mnist or another data set of images",
            )
        return replace(
            data,
            train=self._without_labels(data.train),
            test=self._without_labels(data.test),
            num_classes=1,
            class_names=(),
            modality=UnlabelledImages(binary=self.threshold is not None),
        )

    def _without_labels(self, rows: Examples) -> Examples:
        inputs = rows.inputs if self.threshold is None else (rows.inputs > self.threshold).astype(np.float32)
        return replace(rows, inputs=inputs, targets=np.zeros_like(rows.targets))
