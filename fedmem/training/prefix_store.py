"""Outputs of the frozen prefix of a network, computed once for each row and shared by clients, runs and processes."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Examples
from fedmem.errors import RunError
from fedmem.training.frozen_prefix import (
    Continued,
    FrozenPrefix,
    OutputsChangedError,
    stored_outputs,
    verify_outputs,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

BLOCK = 32
"""Rows of each forward pass that fills the store; a constant, so that the size of the store changes no bit."""

STORED_BYTES = 2 << 30
"""Largest size of the outputs of all rows; above it, nothing is stored. It depends on no machine and no budget."""


class PrefixStore:
    """The stored outputs of the rows of a federation: those that clients train on, and those of evaluated sets.

    Outputs are computed block by block, when a row of a block is read for the first time. The memory is shared with
    processes that are forked later, so that each block is computed once. Two processes that compute it at the same time
    get the same bits. Each block is verified against the whole network on smaller batches.

    Guarantees: the values for a row depend only on the network and the sets. The order of reading, the number of
    processes and the memory of the machine change no bit.
    """

    def __init__(
        self,
        prefix: FrozenPrefix,
        model: nn.Module,
        store: Examples,
        others: Sequence[NDArray[np.float32]] = (),
        device: torch.device | None = None,
    ) -> None:
        self.prefix = prefix
        self.continued = Continued(model, prefix)
        """The rest of the network, which the rows of each block are verified with."""
        self.store = store
        self._model = model
        self._device = device or torch.device("cpu")
        self._others = tuple(others)
        self._sets = (store.inputs, *self._others)
        self._starts = np.cumsum([0, *map(len, self._sets)])
        rows = int(self._starts[-1])
        self._blocks = -(-rows // BLOCK)
        self._parts = tuple(
            _zeros((self._blocks * BLOCK, *shape), dtype, self._device) for shape, dtype in prefix.parts
        )
        self._filled = _zeros((max(1, self._blocks),), torch.uint8, torch.device("cpu")).numpy()

    @property
    def nbytes(self) -> int:
        """Bytes of the outputs of all rows."""
        return self._blocks * BLOCK * self.prefix.row_bytes

    def on(self, model: nn.Module, device: torch.device) -> PrefixStore:
        """The store for a network on `device`: this store, or a separate one if the device differs."""
        if device == self._device:
            return self
        return PrefixStore(self.prefix, model, self.store, self._others, device)

    def fill(self, rows: IntArray) -> None:
        """Compute what is not there of the outputs of these rows; row numbers run through all sets.

        Errors: `RunError` where rows are not as those of trial passes, so that stored outputs would give other logits.
        """
        blocks = np.unique(rows // BLOCK)
        for block in blocks[self._filled[blocks] == 0].tolist():
            self._compute(block)

    def read(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Copies of the outputs (…, shape of a row) of rows (…) of the store.

        On a processor, what is not there is computed (`fill`). On a GPU it has to be there, since nothing waits for it.
        """
        places = rows.flatten()
        if places.device.type == "cpu":
            self.fill(places.numpy())
        return tuple(part.index_select(0, places).view(*rows.shape, *part.shape[1:]) for part in self._parts)

    def find(self, inputs: NDArray[np.float32]) -> IntArray | None:
        """(n,) the places of these rows in the store, found by content; None unless the store has all of them.

        Rows of other content, such as noisy copies, are therefore never taken for stored ones.
        """
        like = self.store.inputs
        if not len(inputs) or inputs.shape[1:] != like.shape[1:] or inputs.dtype != like.dtype:
            return None
        places = np.empty(len(inputs), dtype=np.int64)
        for i, row in enumerate(np.ascontiguousarray(inputs)):
            place = self._places.get(hash(row.tobytes()), -1)
            if place < 0 or row.tobytes() != self._row(place).tobytes():
                return None
            places[i] = place
        return places

    @cached_property
    def _places(self) -> dict[int, int]:
        """The first place of each content, by its hash."""
        places: dict[int, int] = {}
        for start, rows in zip(self._starts.tolist(), self._sets, strict=False):
            for i, row in enumerate(np.ascontiguousarray(rows)):
                places.setdefault(hash(row.tobytes()), start + i)
        return places

    def _row(self, place: int) -> NDArray[np.float32]:
        which = int(np.searchsorted(self._starts, place, side="right")) - 1
        row: NDArray[np.float32] = self._sets[which][place - self._starts[which]]
        return row

    def _compute(self, block: int) -> None:
        last = int(self._starts[-1]) - 1
        places = range(block * BLOCK, (block + 1) * BLOCK)
        rows = torch.from_numpy(np.stack([self._row(min(place, last)) for place in places])).to(self._device)
        try:
            outputs = stored_outputs(self._model, self.prefix, rows)
            verify_outputs(self.continued, self._model, rows, outputs)
        except OutputsChangedError as error:
            raise RunError(
                f"{error}. They depend on other rows, or few rows are as these; write speed: {{cache_prefix: off}}"
            ) from error
        for part, values in zip(self._parts, outputs, strict=True):
            part[block * BLOCK : (block + 1) * BLOCK] = values
        self._filled[block] = 1


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on the processor (CPU), in memory that forked processes share. Unwritten parts take no memory."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    count = int(np.prod(shape, dtype=np.int64))
    size = count * torch.empty((), dtype=dtype).element_size()
    return torch.frombuffer(mmap.mmap(-1, max(1, size)), dtype=dtype, count=count).view(shape)
