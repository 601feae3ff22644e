"""Saved models of a run: one safetensors file for each round and level, written and read piece by piece.

```text
models/round-40-local.safetensors    of each parameter one tensor (T, *shape), the T models by run and client
models/frozen.safetensors            the frozen tensors, which all models share; only where there are some
```

The header of a file says which models it holds. A file has the bytes that `safetensors.torch.save` would write, but is
never in memory as a whole. It holds weights alone, so that reading it runs no code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.contracts.arrays import Params
from fedmem.contracts.measurement import Level
from fedmem.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "models"
"""The folder of saved models in the folder of a run."""

FROZEN = "frozen.safetensors"
"""The file beside them with the frozen tensors that all of them share; only where there are some."""

_KEY = "fedmem"
"""The entry of a header that names the models; a header of several entries would have no fixed order."""

_TYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True, kw_only=True)
class ModelsOfRound:
    """The T models of one round and level that a file holds, in its order.

    Attributes:
        round: Their round.
        level: `local` or `global`.
        run: The run of each.
        client: The client of each; -1 for the aggregate.
        num_examples: The rows that each was trained on; of an aggregate the sum over its clients.
        clients: The clients that each was aggregated from; none at level `local`.
    """

    round: int
    level: Level
    run: tuple[int, ...]
    client: tuple[int, ...]
    num_examples: tuple[int, ...]
    clients: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.run)

    @property
    def name(self) -> str:
        """The name of their file."""
        return file_name(self.round, self.level)

    @classmethod
    def join(cls, parts: Sequence[ModelsOfRound]) -> ModelsOfRound:
        """The models of several files of one round and level, one file after the other."""
        first = parts[0]
        assert all((part.round, part.level) == (first.round, first.level) for part in parts)
        columns = {
            name: tuple(value for part in parts for value in getattr(part, name))
            for name in ("run", "client", "num_examples", "clients")
        }
        return cls(round=first.round, level=first.level, **columns)


@dataclass(frozen=True, kw_only=True)
class StoredModels:
    """One file of saved models, as the manifest of its run has it."""

    round: int
    level: Level
    models: int
    bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """The name of the file, which follows from round and level and is never read from anywhere."""
        return file_name(self.round, self.level)


def file_name(round_number: int, level: Level) -> str:
    """The name of the file of one round and level.

    >>> file_name(40, "local")
    'round-40-local.safetensors'
    """
    return f"round-{round_number}-{level}.safetensors"


def write_models(file: Path, models: ModelsOfRound, like: Params, values: Callable[[str], Iterable[Tensor]]) -> None:
    """Writes the models of one round and level.

    Args:
        file: Where they go.
        models: Which models they are.
        like: A model with the names, shapes and types of their parameters.
        values: The parameter of a name, of all models in their order, in one tensor or several; any leading axes.
    """
    header, size = _header(models, like)
    with file.open("wb") as stream:
        stream.write(header)
        for name in _order_names(like):
            for value in values(name):
                stream.write(memoryview(_bytes_of(value)))
        assert stream.tell() == len(header) + size, "models of another shape"


def _header(models: ModelsOfRound, like: Params) -> tuple[bytes, int]:
    """The header of a file as safetensors writes it, and the number of bytes that follow."""
    about = json.dumps({**asdict(models), "names": list(like)}, separators=(",", ":"), ensure_ascii=False)
    content: dict[str, Any] = {"__metadata__": {_KEY: about}}
    end = 0
    for name in _order_names(like):
        value = like[name]
        start, end = end, end + len(models) * value.numel() * value.element_size()
        content[name] = {
            "dtype": _TYPES[str(value.dtype).removeprefix("torch.")],
            "shape": [len(models), *value.shape],
            "data_offsets": [start, end],
        }
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, end


def _order_names(like: Params) -> list[str]:
    """The names of parameters in the order of a file: the widest types first, then by name."""
    return sorted(like, key=lambda name: (-like[name].element_size(), name))


def _bytes_of(value: Tensor) -> Any:
    """The bytes of a tensor, without a copy where it lies in one piece on the CPU."""
    import torch

    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


class ModelsFile:
    """An open file of saved models, which has been checked: see `open_models`."""

    def __init__(self, content: Any, models: ModelsOfRound, names: tuple[str, ...]) -> None:
        self._content = content
        self.models = models
        self.names = names

    def stack(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """(stop − start, *shape) one parameter of these models, by default of all."""
        values: Tensor = self._content.get_slice(name)[start : len(self.models) if stop is None else stop]
        return values

    def params(self, position: int) -> Params:
        """The parameters of the model at a position 0 .. T − 1."""
        return self.several(position, position + 1)[0]

    def several(self, start: int, stop: int) -> list[Params]:
        """The parameters of the models from a position up to another."""
        stacks = {name: self.stack(name, start, stop) for name in self.names}
        return [{name: value[t] for name, value in stacks.items()} for t in range(stop - start)]


@contextmanager
def open_models(file: Path, stored: StoredModels | None = None, like: Params | None = None) -> Iterator[ModelsFile]:
    """Yields a file of saved models, whose tensors are read when they are asked for.

    Args:
        file: The file.
        stored: What the manifest says of it; its size and SHA-256 are compared.
        like: A model with the names, shapes and types that its parameters should have.

    Errors: `RunError` that names the file where it is missing, damaged, another one, or of another model.
    """
    from safetensors import safe_open

    with ExitStack() as stack:
        with _naming(file):
            if stored is not None:
                _check_bytes(file, stored)
            content = stack.enter_context(safe_open(file, framework="pt"))
            file_content = _check_content(content, stored, like)
        yield file_content


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Whatever goes wrong while a file is opened becomes a `RunError` that names it."""
    from safetensors import SafetensorError

    remedy = "put a copy of the file back, or run the scenario again with --force"
    try:
        yield
    except FileNotFoundError as error:
        raise RunError(f"{file} is missing; {remedy}") from error
    except _Unusable as error:
        raise RunError(f"{file} cannot be used: {error}; {remedy}") from error
    except (OSError, SafetensorError) as error:
        raise RunError(f"{file} is damaged ({type(error).__name__}: {error!s:.200}); {remedy}") from error


class _Unusable(ValueError):
    """Why a file of saved models cannot be used."""


def _check_bytes(file: Path, stored: StoredModels) -> None:
    size = file.stat().st_size
    if size != stored.bytes:
        raise _Unusable(f"it has {size} bytes, {stored.bytes} were written")
    if digest_of_file(file) != stored.sha256:
        raise _Unusable("its SHA-256 differs from that in the manifest, so it was damaged or replaced")


def digest_of_file(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_content(content: Any, stored: StoredModels | None, like: Params | None) -> ModelsFile:
    models, order = _read_header(content)
    if stored is not None and (models.round, models.level, len(models)) != (
        stored.round,
        stored.level,
        stored.models,
    ):
        raise _Unusable(
            f"it holds {len(models)} models of round {models.round}, {models.level}, should be {stored.models} of "
            f"round {stored.round}, {stored.level}"
        )
    names = set(order)
    shapes = {name: tuple(content.get_slice(name).get_shape()) for name in sorted(names)}
    for name, shape in shapes.items():
        if shape[:1] != (len(models),):
            raise _Unusable(f"{name!r} has shape {shape}, should begin with the {len(models)} models")
    for name, value in (like or {}).items():
        if name not in names:
            raise _Unusable(f"the model's parameter {name!r} is missing")
        if shapes[name][1:] != tuple(value.shape):
            raise _Unusable(f"{name!r} has shape {shapes[name][1:]}, in the model {tuple(value.shape)}")
        if content.get_slice(name).get_dtype() != _TYPES[str(value.dtype).removeprefix("torch.")]:
            raise _Unusable(f"{name!r} is of type {content.get_slice(name).get_dtype()}, in the model {value.dtype}")
    if like is not None and (unknown := sorted(names - set(like))):
        raise _Unusable(f"{unknown[0]!r} is no parameter of the model")
    return ModelsFile(content, models, order)


def _read_header(content: Any) -> tuple[ModelsOfRound, tuple[str, ...]]:
    """Which models an open file holds, and the names of their parameters in the order of the network."""
    try:
        read = json.loads(content.metadata()[_KEY])
        names = tuple(read["names"])
        columns = {name: _numbers(read[name]) for name in ("run", "client", "num_examples")}
        models = ModelsOfRound(
            round=_number(read["round"]),
            level=read["level"],
            clients=tuple(map(_numbers, read["clients"])),
            **columns,
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _Unusable(f"its header names no models ({type(error).__name__})") from error
    lengths = {len(models.client), len(models.num_examples), len(models.clients)}
    if models.level not in ("local", "global") or lengths != {len(models.run)}:
        raise _Unusable("its header does not name each model once")
    if len(names) != len(set(names)) or set(names) != set(content.keys()):
        raise _Unusable("its header names other parameters than it holds")
    return models, names


def stored_models(manifest: Mapping[str, Any], origin: Path) -> tuple[StoredModels, ...]:
    """The files of saved models that a manifest lists, by round and level; none where it lists none.

    Errors: `RunError` that names the manifest where an entry is wrong.
    """
    try:
        entries = tuple(
            StoredModels(
                round=_number(entry["round"]),
                level={"local": "local", "global": "global"}[entry["level"]],  # type: ignore[arg-type]
                models=_number(entry["models"]),
                bytes=_number(entry["bytes"]),
                sha256=str(entry["sha256"]),
            )
            for entry in manifest.get("models", ())
        )
        if len({entry.name for entry in entries}) < len(entries):
            raise ValueError("two entries of one round and level")
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{origin} is damaged (models: {type(error).__name__}: {error}); put a copy of the file back, or run the "
            "scenario again with --force"
        ) from error
    return entries


def describe_file(file: Path, models: ModelsOfRound) -> dict[str, Any]:
    """The entry of a manifest about a file that was written."""
    return asdict(
        StoredModels(
            round=models.round,
            level=models.level,
            models=len(models),
            bytes=file.stat().st_size,
            sha256=digest_of_file(file),
        )
    )


def write_frozen(folder: Path, frozen: Params) -> dict[str, Any]:
    """Writes the frozen tensors of a network, and returns the entry of a manifest about the file."""
    from safetensors.torch import save

    file = folder / FROZEN
    file.write_bytes(save({name: value.detach().cpu().contiguous().clone() for name, value in frozen.items()}))
    return {"bytes": file.stat().st_size, "sha256": digest_of_file(file)}


def check_stored_file(file: Path, entry: Mapping[str, Any]) -> None:
    """Compares a file with its entry in a manifest. Errors: `RunError` where it is missing or another one."""
    with _naming(file):
        size = file.stat().st_size
        if (size, digest_of_file(file)) != (entry.get("bytes"), entry.get("sha256")):
            raise _Unusable("its SHA-256 differs from that in the manifest, so it was damaged or replaced")


def join_files(parts: Sequence[Path], file: Path) -> ModelsOfRound:
    """Writes one file with the models of several, one after the other; holds one parameter of one part at a time."""
    from safetensors import safe_open

    def read(name: str) -> Iterator[Tensor]:
        for part in parts:
            with safe_open(part, framework="pt") as content:
                yield content.get_tensor(name)

    held = []
    for part in parts:
        with safe_open(part, framework="pt") as content:
            models, names = _read_header(content)
            held.append(models)
            like = {name: content.get_slice(name)[:1][0] for name in names}
    models = ModelsOfRound.join(held)
    write_models(file, models, like, read)
    return models


def _number(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r:.40} is no whole number")
    return value


def _numbers(values: Any) -> tuple[int, ...]:
    return tuple(map(_number, values))
