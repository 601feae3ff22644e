"""One root seed, many named streams: no draw in the project comes from anywhere else."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=256)
def _words(purpose: str) -> tuple[int, ...]:
    digest = hashlib.sha256(purpose.encode()).digest()
    return tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))


def stream(
    seed: int, purpose: str, *, run: int | None = None, round: int | None = None, client: int | None = None
) -> np.random.Generator:
    """The generator of one purpose at one place.

    Guarantees:

    - equal arguments give equal draws, on every machine;
    - streams that differ in any argument are independent (128 bits of the purpose's SHA-256 and the indices
      enter one `SeedSequence`);
    - drawing from one stream never shifts another.

    >>> float(stream(0, "roster", round=3).random()) == float(stream(0, "roster", round=3).random())
    True
    >>> float(stream(0, "roster", round=3).random()) == float(stream(0, "roster", round=4).random())
    False
    """
    place = tuple(0 if index is None else index + 2 for index in (run, round, client))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, *_words(purpose), *place))))
