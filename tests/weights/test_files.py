"""Files of parameters: nothing in a file is run, and what cannot be read is named."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.errors import FolderError
from fedmem.weights.files import read_params


class Trap:
    """Unpickling this would create a file."""

    def __reduce__(self) -> Any:
        return (open, ("sprung", "w"))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_a_pickle_is_refused_and_not_run(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for write in (lambda file: file.write_bytes(pickle.dumps(Trap())), lambda file: torch.save({"w": Trap()}, file)):
        file = tmp_path / f"evil{suffix}"
        write(file)
        with pytest.raises(FolderError, match=r"state_dict\(\)"):
            read_params(file)
    assert not (tmp_path / "sprung").exists()


def test_arrays_of_objects_are_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "evil.npz", w=np.array([Trap()], dtype=object))
    with pytest.raises(FolderError, match="runs code"):
        read_params(tmp_path / "evil.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", b"nothing", "no file of safetensors"),
        ("model.npz", b"nothing", "runs code|no .npz"),
        ("model.npz", b"", "is empty"),
        ("model.pt", b"nothing", "damaged"),
        ("model.pt", b"", "is empty"),
        ("model.pkl", b"nothing", "end in"),
        ("model.h5", b"nothing", "end in"),
    ],
)
def test_damaged_and_foreign_files_are_named(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FolderError, match=said) as error:
        read_params(tmp_path / name)
    assert name in str(error.value)
    assert error.value.exit_code == 2


def test_file_without_state_dict_is_refused_with_the_reason(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    torch.save({"w": torch.zeros(2), "epoch": 3}, tmp_path / "checkpoint.pt")
    torch.save({}, tmp_path / "empty.pt")
    for name, said in (
        ("list.pt", "holds a list"),
        ("checkpoint.pt", "'epoch' is no tensor"),
        ("empty.pt", "no tensor"),
    ):
        with pytest.raises(FolderError, match=said):
            read_params(tmp_path / name)
    with pytest.raises(FolderError, match="no such file"):
        read_params(tmp_path / "absent.pt")
