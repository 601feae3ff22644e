"""Tensors of a file as the trained parameters and the frozen part of a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fedmem.apps.saved_models import fit_to_model, read_frozen
from fedmem.errors import FolderError
from fedmem.weights.files import read_params


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def save(file: Path, model: nn.Module) -> Path:
    state = model.state_dict()
    if file.suffix == ".safetensors":
        save_file(state, file)
    elif file.suffix == ".npz":
        np.savez(file, **{name: value.numpy() for name, value in state.items()})
    else:
        torch.save(state, file)
    return file


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt", ".pth", ".bin"])
def test_every_kind_of_file_gives_back_what_was_saved(suffix: str, tmp_path: Path) -> None:
    model = net()
    found = fit_to_model(read_params(save(tmp_path / f"model{suffix}", model)), model, "before")
    assert list(found) == [name for name, _ in model.named_parameters()]
    assert all(torch.equal(found[name], value) for name, value in model.named_parameters())


def test_flowers_list_of_arrays_is_taken_in_order(tmp_path: Path) -> None:
    model = net()
    np.savez(tmp_path / "list.npz", *[value.numpy() for value in model.state_dict().values()])
    found = fit_to_model(read_params(tmp_path / "list.npz"), model, "before")
    assert all(torch.equal(found[name], value) for name, value in model.named_parameters())


def test_buffers_are_read_beside_parameters_and_left_out_of_them(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    model(torch.rand(8, 4))
    params = read_params(save(tmp_path / "model.pt", model))
    other = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    assert set(fit_to_model(params, other, "before")) == {name for name, _ in model.named_parameters()}
    loaded = read_frozen(params, other)
    assert torch.equal(loaded.state_dict()["1.running_mean"], model.state_dict()["1.running_mean"])
    assert not other.state_dict()["1.running_mean"].any(), "the model that was given is not changed"


def test_other_names_and_shapes_are_named() -> None:
    model, state = net(), dict(net().state_dict())
    with pytest.raises(FolderError, match=r"before: the model's parameter '2.bias' is missing"):
        fit_to_model({name: value for name, value in state.items() if name != "2.bias"}, model, "before")
    with pytest.raises(FolderError, match=r"'extra' is no parameter"):
        fit_to_model({**state, "extra": torch.zeros(1)}, model, "before")
    with pytest.raises(FolderError, match=r"shape \(5,\), in the model \(2,\)"):
        fit_to_model({**state, "2.bias": torch.zeros(5)}, model, "before")
    with pytest.raises(FolderError, match="3 arrays for the 4 parameters"):
        fit_to_model({f"arr_{i}": torch.zeros(1) for i in range(3)}, model, "before")
