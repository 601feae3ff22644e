"""Files of weights from other sources, read without running any code in them."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedmem.contracts.arrays import Params
from fedmem.errors import FolderError
from fedmem.wording import choices

KINDS = (".safetensors", ".npz", ".pt", ".pth", ".bin")
"""How the files may end: safetensors; arrays of numpy; a state dict of torch, which is loaded with weights only."""


def read_params(file: Path) -> Params:
    """The tensors of a file, by name.

    - `.safetensors`, and state dicts of torch in `.pt`, `.pth` or `.bin`, have names;
    - `.npz` has the names it was saved with. `arr_0`, `arr_1`, ... are arrays in the order of the model's parameters,
      as `np.savez(file, *arrays)` saves Flower's lists of arrays.

    Nothing in the file is run: objects that only pickle could make again are refused.

    Errors: `FolderError` where there is no such file, or it holds anything but tensors.
    """
    if file.suffix not in KINDS:
        raise FolderError(f"{file}: files of parameters end in {', '.join(KINDS)}{choices(file.suffix, KINDS)}")
    if not file.is_file():
        raise FolderError(f"{file}: there is no such file")
    if not file.stat().st_size:
        raise FolderError(f"{file}: is empty; save it again")
    reader = {".safetensors": _safetensors, ".npz": _npz}.get(file.suffix, _torch)
    params = reader(file)
    if not params:
        raise FolderError(f"{file}: holds no tensor; save the state dict of the whole model")
    for name, value in params.items():
        if unusable := _reason_unreadable(value):
            raise FolderError(f"{file}: {name!r} is {unusable}; save plain tensors of real numbers")
    return params


def _reason_unreadable(value: Any) -> str:
    """Why the numbers of a tensor cannot be read; empty where they can."""
    import torch

    if value.is_meta:
        return "on the device meta, without any numbers"
    if value.is_quantized:
        return "quantised; call its method dequantize before saving"
    if value.layout != torch.strided or value.is_nested:
        return "sparse or nested; call its method to_dense before saving"
    return f"of complex numbers ({value.dtype})" if value.is_complex() else ""


def _safetensors(file: Path) -> Params:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except SafetensorError as error:
        raise FolderError(f"{file}: is no file of safetensors ({error}); save it again") from error


def _npz(file: Path) -> Params:
    import torch

    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in arrays.files}
    except ValueError as error:
        raise FolderError(
            f"{file}: holds Python objects, which are not read because reading them runs code; save plain arrays with "
            "np.savez(file, **{name: tensor.numpy() for name, tensor in model.state_dict().items()})"
        ) from error
    except (OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise FolderError(f"{file}: is no .npz of numbers ({error}); save it again with np.savez") from error


def _torch(file: Path) -> Params:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that are refused anyway
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # a damaged pickle fails in any way
        raise FolderError(
            f"{file}: holds more than weights, or is damaged; objects are not read because reading them runs code. "
            "Save torch.save(model.state_dict(), file), or safetensors.torch.save_file(model.state_dict(), file)"
        ) from error
    wrong = (
        sorted(str(key) for key, value in content.items() if not isinstance(value, torch.Tensor))
        if _maps(content)
        else []
    )
    if not _maps(content) or wrong:
        what = f"its entry {wrong[0]!r} is no tensor" if wrong else f"it holds a {type(content).__name__}"
        raise FolderError(f"{file}: is no state dict, {what}; save torch.save(model.state_dict(), file)")
    return {str(key): value.detach() for key, value in content.items()}


def _maps(value: Any) -> bool:
    return isinstance(value, Mapping)
