"""Tests of `fedmem/exports/weights.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedmem.contracts.export import ExportContent
from fedmem.errors import RunError
from fedmem.exports.weights import Weights


def test_weights_are_written_under_their_names(tmp_path: Path) -> None:
    weights = {"a.weight": torch.arange(6.0).reshape(2, 3).T, "count": torch.tensor(3)}
    Weights().write(ExportContent(title="t", id="i", weights=lambda: weights), tmp_path, tmp_path)
    read = load_file(tmp_path / "model.safetensors")
    assert set(read) == set(weights)
    assert all(torch.equal(read[name], value) for name, value in weights.items())


def test_a_study_has_no_weights(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="export the folder of one of them"):
        Weights().write(ExportContent(title="t", id="i"), tmp_path, tmp_path)
