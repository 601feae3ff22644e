"""Arrow columns from the memory of numpy arrays, and back, without pandas.

`pyarrow.array` and `to_numpy` load it to see whether they are given any of it. That takes longer than most shards take
to be written, and every process that trains a shard writes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, IntArray
from fedmem.contracts.measurement import LabelValue

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Text:
    """Strings (n,) as `categories` and the place of each among them (n,)."""

    categories: Sequence[str]
    places: IntArray | NDArray[np.int32]

    @staticmethod
    def of(values: Sequence[str]) -> Text:
        """Words in alphabetical order.

        >>> Text.of(["b", "a", "b"])
        Text(categories=['a', 'b'], places=array([1, 0, 1]))
        """
        words = sorted(set(values))
        place = {word: i for i, word in enumerate(words)}
        return Text(
            categories=words, places=np.fromiter(map(place.__getitem__, values), dtype=np.int64, count=len(values))
        )

    @staticmethod
    def repeat_word(word: str, count: int) -> Text:
        """One word `count` times."""
        return Text(categories=[word], places=np.zeros(count, dtype=np.int64))


@dataclass(frozen=True, kw_only=True)
class Lists:
    """Lists (n,): `values` one after the other, the number of them in each (n,), and which are missing (n,)."""

    values: NDArray[Any]
    sizes: IntArray
    missing: BoolArray | None = None


@dataclass(frozen=True, kw_only=True)
class Nullable:
    """Numbers (n,) of which some are missing (n,), which is not the same as NaN."""

    values: NDArray[Any]
    missing: BoolArray


def label_type(name: str, values: Sequence[LabelValue | None]) -> str:
    """The type of the column that holds the values of a label; empty without any."""
    present = {type(value) for value in values if value is not None}
    for kinds, column_type in (({str}, "text"), ({bool}, "bool"), ({int}, "int64"), ({int, float}, "float64")):
        if present and present <= kinds:
            return column_type
    if present:
        raise TypeError(
            f"the label {name} has values of the types {sorted(value_type.__name__ for value_type in present)}"
        )
    return ""


Column = NDArray[Any] | Text | Lists | Nullable


def column(values: Column, kind: pa.DataType) -> pa.Array:
    """The Arrow array of this type; of numbers it shares the memory where they are of its type already.

    >>> import pyarrow as pa
    >>> column(np.array([1.5, np.nan]), pa.float64()).to_pylist(), column(np.ones(2, bool), pa.bool_()).to_pylist()
    ([1.5, nan], [True, True])
    >>> column(Text.of(["b", "a"]), pa.dictionary(pa.int32(), pa.string())).to_pylist()
    ['b', 'a']
    >>> column(Lists(values=np.arange(3), sizes=np.array([1, 0, 2])), pa.list_(pa.int64())).to_pylist()
    [[0], [], [1, 2]]
    """
    import pyarrow as pa

    if isinstance(values, Text):
        words, ends = (
            [word.encode() for word in values.categories],
            np.cumsum([0, *(len(w.encode()) for w in values.categories)]),
        )
        buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(words))]
        dictionary = pa.Array.from_buffers(kind.value_type, len(words), buffers)
        return pa.DictionaryArray.from_arrays(column(values.places, kind.index_type), dictionary)
    if isinstance(values, Lists):
        ends = np.concatenate([[0], np.cumsum(values.sizes)]).astype(np.int32)
        buffers = [_validity_bits(values.missing), pa.py_buffer(ends)]
        inner = column(values.values, kind.value_type)
        return pa.Array.from_buffers(kind, len(values.sizes), buffers, children=[inner])
    numbers, missing = (values.values, values.missing) if isinstance(values, Nullable) else (values, None)
    if pa.types.is_boolean(kind):
        data = np.packbits(numbers.astype(bool), bitorder="little")
    else:
        data = np.ascontiguousarray(numbers, dtype=np.dtype(kind.to_pandas_dtype()))
    return pa.Array.from_buffers(kind, len(numbers), [_validity_bits(missing), pa.py_buffer(data)])


def _validity_bits(missing: BoolArray | None) -> pa.Buffer | None:
    """The bits of what is there; none where everything is."""
    import pyarrow as pa

    if missing is None or not missing.any():
        return None
    return pa.py_buffer(np.packbits(~missing, bitorder="little"))


def numbers(array: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    """The numbers of an Arrow array as numpy's, in the memory of Arrow where they are in one piece; read-only.

    >>> import pyarrow as pa
    >>> numbers(pa.chunked_array([column(np.arange(2), pa.int32()), column(np.arange(3), pa.int32())])).tolist()
    [0, 1, 0, 1, 2]
    """
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        pieces = [numbers(piece) for piece in array.chunks] or [numbers(column(np.empty(0), array.type))]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    buffer = array.buffers()[1]
    if pa.types.is_boolean(array.type):
        return _bits(buffer, array)
    dtype = np.dtype(array.type.to_pandas_dtype())
    return np.frombuffer(buffer, dtype, count=len(array), offset=array.offset * dtype.itemsize)


def is_present(array: pa.Array) -> BoolArray:
    """(n,) what is not missing."""
    buffer = array.buffers()[0]
    return np.ones(len(array), dtype=bool) if buffer is None else _bits(buffer, array)


def _bits(buffer: pa.Buffer, array: pa.Array) -> BoolArray:
    data = np.frombuffer(buffer, np.uint8)
    bits = np.unpackbits(data, count=array.offset + len(array), bitorder="little")[array.offset :]
    return bits.astype(bool)
