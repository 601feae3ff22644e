"""What tests of texts share."""

from __future__ import annotations

import numpy as np

from fedmem.contracts.data import Dataset, DatasetLoader, Examples
from fedmem.modalities.text.vocabulary import Vocabulary
from fedmem.modalities.text.windows import join_windows


def load(loader: DatasetLoader, seed: int = 0) -> Dataset:
    return loader.load(np.random.default_rng(seed))


def written(rows: Examples, vocabulary: Vocabulary) -> list[str]:
    """The text of each row."""
    return [vocabulary.decode(row[row >= 0]) for row in join_windows(rows.inputs, rows.targets)]


PEOPLE = [("b", "the cat sat on the mat " * 4, "x"), ("a", "a dog ate the cat " * 9, "y"), ("b", "and slept", "x")]
