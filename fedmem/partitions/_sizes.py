"""The number of rows of each client: whole numbers from shares, and an error where there are too few rows."""

from __future__ import annotations

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.ragged import Ragged
from fedmem.errors import ComponentError


def require(rows: int, num_clients: int, min_rows: int, field: str = "min_rows") -> None:
    """Raise `ComponentError` where a client would get fewer than `min_rows` rows; `field` is the field that asks."""
    if rows < num_clients * min_rows:
        product = f"clients or {field} until their product is at most {rows}" if field else f"clients to at most {rows}"
        raise ComponentError(
            "partition",
            f"{rows} rows cannot give each of {num_clients} clients {min_rows}; lower {product}, or leave more rows "
            "over (population, per_client of the injections)",
        )


def apportion(shares: FloatArray, total: int, min_size: int) -> IntArray:
    """(N,) sizes that add up to `total`: `min_size` for everybody, and of the rest in proportion to `shares`.

    Boundaries are rounded to the nearest row; rounding sizes down would favour the client that gets the remainder.
    """
    rest = total - min_size * len(shares)
    assert rest >= 0, "`require` comes first"
    bounds = np.rint(np.cumsum(shares) / shares.sum() * rest).astype(np.int64)
    sizes: IntArray = min_size + np.diff(bounds, prepend=0)
    return sizes


def even_sizes(total: int, parts: int) -> IntArray:
    """(parts,) sizes that add up to `total` and differ by one at most, the larger ones first.

    >>> even_sizes(10, 4).tolist()
    [3, 3, 2, 2]
    """
    return total // parts + (np.arange(parts) < total % parts)


def split(rows: IntArray, sizes: IntArray) -> Ragged:
    """Consecutive parts of these sizes, each sorted."""
    return Ragged.split(rows, sizes).sort_parts()
