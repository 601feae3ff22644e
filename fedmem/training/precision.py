"""How precisely the steps of clients are computed: in `fp32`, `tf32` or `bf16`.

| | fp32 | tf32 | bf16 |
|---|---|---|---|
| factors of products and convolutions in steps | float32 | 10 bits of fraction | 7 bits of fraction |
| outputs of layers | float32 | float32 | bfloat16 where autocast says so |
| weights, clipping, noise, server, observed models, probes, evidence | full | full | full |

Full precision is float32 or float64. By default, torch lets cuDNN round to TF32 on GPUs of NVIDIA in the whole process.
`full_precision` forbids it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import reduce
from typing import Any

import torch

BF16_ROUNDING = 2.0**-7
"""By how much of the largest value equal calculations in bfloat16 may differ when they add up in another order."""

_PARTS = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")
"""Parts of `torch.backends` with a setting of their own, since torch 2.9."""


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute products and convolutions of float32 in float32, whatever the process says; it is put back afterwards.

    >>> torch.backends.cudnn.allow_tf32 = True
    >>> with full_precision():
    ...     torch.backends.cudnn.allow_tf32
    False
    >>> torch.backends.cudnn.allow_tf32
    True
    """
    with _products(tf32=False):
        yield


def products_of_steps(precision: str) -> AbstractContextManager[None]:
    """The block in which clients do their steps: products in TF32 where the precision is `tf32`."""
    return _products(tf32=True) if precision == "tf32" else nullcontext()


def forward_pass(precision: str, device: str) -> AbstractContextManager[Any]:
    """The block of a forward pass of a client in training: autocast of torch where the precision is `bf16`.

    The backward pass belongs outside of it; torch goes back in the types of the forward pass. Casts are not cached,
    since one weight may stand for those of many clients.
    """
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False)


@contextmanager
def _products(*, tf32: bool) -> Iterator[None]:
    parts = _settings()
    before = [part.fp32_precision for part in parts.values()]
    matmul: str | None = None
    cudnn: bool | None = None
    with suppress(RuntimeError):  # torch refuses to say where a program has used both old and new settings
        matmul = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        cudnn = torch.backends.cudnn.allow_tf32
    # the old settings first, since they write the new ones
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    for name, part in parts.items():
        part.fp32_precision = "tf32" if tf32 and name.startswith("cu") else "ieee"
    try:
        yield
    finally:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if cudnn is not None:
            torch.backends.cudnn.allow_tf32 = cudnn
        for part, value in zip(parts.values(), before, strict=True):
            part.fp32_precision = value


def _settings() -> dict[str, Any]:
    """The parts of `torch.backends` that have a setting, by name; none before torch 2.9."""
    parts: dict[str, Any] = {}
    with suppress(AttributeError):
        for name in _PARTS:
            part: Any = reduce(getattr, name.split("."), torch.backends)
            part.fp32_precision  # noqa: B018 - asked for, and not there in older versions
            parts[name] = part
    return parts
