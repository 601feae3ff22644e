"""What tests of image folder share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedmem.contracts.data import Dataset
from fedmem.datasets.image_folder import ImageFolder


def load(folder: Path, **fields: Any) -> Dataset:
    return ImageFolder(path=str(folder), **fields).load(np.random.default_rng(0))
