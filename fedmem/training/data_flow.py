"""Which tensors of a forward pass are computed from others, whatever their values and gradients are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_SHAPES_ONLY = frozenset(
    f"aten::{name}"
    for name in (
        *("zeros_like", "ones_like", "full_like", "empty_like"),
        *("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided"),
    )
)
"""Operations that read the shape of a tensor alone."""

_LEAVES_TORCH = (Tensor.tolist, Tensor.numpy, Tensor.__array__)
"""Methods whose results are no tensors, and that dispatch no operation."""


class DataFlow:
    """Marks tensors, and each tensor that is computed from a marked one, while the block lasts.

    Neither `detach` nor `argmax` hides a dependence, as it hides a gradient. Views share the mark of their storage.
    Where a marked value becomes a number of Python, everything afterwards counts as computed from it.

    >>> x = torch.ones(3)
    >>> with DataFlow([x]) as flow:
    ...     chosen, other = x.detach().argmax(), torch.zeros_like(x)
    >>> flow.reaches([chosen]), flow.reaches([other])
    (True, False)
    """

    def __init__(self, sources: Iterable[Tensor] = ()) -> None:
        self._held: list[Tensor] = []
        self._marked: set[int] = set()
        self._is_read = False
        self._modes = (_Functions(self), _Operations(self))
        self.mark(sources)

    def __enter__(self) -> DataFlow:
        for mode in self._modes:
            mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in self._modes[::-1]:
            mode.__exit__(*error)  # type: ignore[no-untyped-call]

    def mark(self, values: Iterable[Any]) -> None:
        """Mark tensors; they are held, so that no other storage takes their place."""
        for value in values:
            if isinstance(value, Tensor):
                self._held.append(value)
                self._marked.add(_storage(value))

    def reaches(self, values: Iterable[Any]) -> bool:
        """Whether one of these is computed from a marked tensor."""
        return self._is_read or any(_storage(value) in self._marked for value in values if isinstance(value, Tensor))

    def follow(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The result of an operation, which is marked where an argument is."""
        inputs = tree_leaves((args, kwargs))
        is_marked = self.reaches(inputs) and function._schema.name not in _SHAPES_ONLY
        outputs = function(*args, **kwargs)
        if is_marked:
            self._is_read |= function is torch.ops.aten._local_scalar_dense.default
            self.mark(tree_leaves(outputs))
            if function._schema.is_mutable:
                self.mark(inputs)
        return outputs

    def follow_out(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The result of a function of torch; its values may leave torch."""
        if function in _LEAVES_TORCH:
            self._is_read |= self.reaches(args)
        return function(*args, **kwargs)


class _Operations(TorchDispatchMode):
    def __init__(self, flow: DataFlow) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._flow = flow

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._flow.follow(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    def __init__(self, flow: DataFlow) -> None:
        super().__init__()
        self._flow = flow

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._flow.follow_out(func, args, kwargs or {})


def _storage(value: Tensor) -> int:
    """The number of the storage of a tensor, which its views share."""
    return int(value.untyped_storage()._cdata)
