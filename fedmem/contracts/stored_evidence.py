"""Evidence whose values stay in files until they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.evidence import Evidence, EvidenceHead


class StoredEvidence(Evidence):
    """Evidence whose values stay in files. Each access reads them again, so that memory holds what is in use."""

    _shape: tuple[int, int]
    _dtype: np.dtype[Any]
    _has_shares: bool
    _read: Callable[[str], NDArray[Any]]

    def __init__(
        self,
        head: EvidenceHead,
        *,
        examples: int,
        dtype: np.dtype[Any],
        has_shares: bool,
        read: Callable[[str], NDArray[Any]],
    ) -> None:
        """Evidence of `head`.

        Args:
            head: The round, level, set and models.
            examples: n.
            dtype: The type of `loss` and `margin`.
            has_shares: Whether `correct` are shares.
            read: Reads the values (T, n) of `loss`, `margin` or `correct`, by its name.
        """
        hidden = {"_shape": (len(head.run), examples), "_dtype": dtype, "_has_shares": has_shares, "_read": read}
        for name, value in {**vars(head), **hidden}.items():
            object.__setattr__(self, name, value)

    @property
    def loss(self) -> FloatArray:
        """(T, n), read now."""
        return self._read("loss")

    @property
    def margin(self) -> FloatArray:
        """(T, n), read now."""
        return self._read("margin")

    @property
    def correct(self) -> BoolArray | FloatArray:
        """(T, n), read now."""
        return self._read("correct")

    @property
    def shape(self) -> tuple[int, int]:
        """(T, n)."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the margins."""
        return self._dtype

    @property
    def has_shares(self) -> bool:
        """Whether `correct` are shares, as for texts."""
        return self._has_shares


def join_evidence(blocks: Sequence[Evidence]) -> Evidence:
    """The models of blocks of one round, level and set below each other; values of stored blocks stay in their files.

    >>> part = {"round": 0, "level": "global", "set": "test", "client": np.array([-1])}
    >>> part |= {name: np.ones((1, 2)) for name in ("loss", "margin", "correct")}
    >>> blocks = [Evidence(run=np.array([run]), **part) for run in (3, 4)]
    >>> join_evidence(blocks).run.tolist(), join_evidence(blocks).shape
    ([3, 4], (2, 2))
    """
    first = blocks[0]
    assert len({(block.set, block.shape[1], block.dtype) for block in blocks}) == 1
    run, client = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("run", "client"))

    def values(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(block, name) for block in blocks])

    if not any(isinstance(block, StoredEvidence) for block in blocks):
        loss, margin, correct = (values(name) for name in ("loss", "margin", "correct"))
        return replace(first, run=run, client=client, loss=loss, margin=margin, correct=correct)
    return StoredEvidence(
        EvidenceHead(round=first.round, level=first.level, set=first.set, run=run, client=client, rows=first.rows),
        examples=first.shape[1],
        dtype=first.dtype,
        has_shares=first.has_shares,
        read=values,
    )
