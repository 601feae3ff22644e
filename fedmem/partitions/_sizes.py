"""How many rows each client gets: whole numbers from shares, and a refusal where there are too few rows."""

from __future__ import annotations

import numpy as np

from fedmem.contracts.ragged import Parts
from fedmem.contracts.types import FloatArray, IntArray
from fedmem.errors import ComponentError


def require(rows: int, num_clients: int, each: int, field: str = "min_rows") -> None:
    """`ComponentError` if there are fewer than `each` rows for a client; `field` asks for them, if any field does."""
    if rows < num_clients * each:
        product = f"clients or {field} until their product is at most {rows}" if field else f"clients to at most {rows}"
        raise ComponentError(
            "partition",
            f"{rows} rows cannot give each of {num_clients} clients {each}; lower {product}, or leave more rows over "
            "(population, per_client of the injections)",
        )


def apportion(shares: FloatArray, total: int, least: int) -> IntArray:
    """(N,) sizes that add up to `total`: `least` for everybody, and of the rest in proportion to `shares`.

    Boundaries are rounded to the nearest row; rounding sizes down would favour whoever gets the remainder.
    """
    rest = total - least * len(shares)
    assert rest >= 0, "`require` comes first"
    bounds = np.rint(np.cumsum(shares) / shares.sum() * rest).astype(np.int64)
    sizes: IntArray = least + np.diff(bounds, prepend=0)
    return sizes


def even_sizes(total: int, parts: int) -> IntArray:
    """(parts,) sizes that add up to `total` and differ by one at most, the larger ones first.

    >>> even_sizes(10, 4).tolist()
    [3, 3, 2, 2]
    """
    return total // parts + (np.arange(parts) < total % parts)


def split(rows: IntArray, sizes: IntArray) -> Parts:
    """Consecutive parts of these sizes, each sorted."""
    return Parts.cut(rows, sizes).ordered()
