"""One root seed, many named streams: no draw in the project comes from anywhere else."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np


@lru_cache(maxsize=256)
def _purpose_words(purpose: str) -> tuple[int, ...]:
    digest = hashlib.sha256(purpose.encode()).digest()
    return tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))


def stream(
    seed: int, purpose: str, *, run: int | None = None, round_number: int | None = None, client: int | None = None
) -> np.random.Generator:
    """The generator of one purpose at one place.

    Guarantees:

    - equal arguments give equal draws, on every machine;
    - streams that differ in any argument are independent (128 bits of the purpose's SHA-256 and the indices
      enter one `SeedSequence`);
    - drawing from one stream never shifts another.

    >>> float(stream(0, "roster", round_number=3).random()) == float(stream(0, "roster", round_number=3).random())
    True
    >>> float(stream(0, "roster", round_number=3).random()) == float(stream(0, "roster", round_number=4).random())
    False
    """
    place = tuple(0 if index is None else index + 2 for index in (run, round_number, client))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, *_purpose_words(purpose), *place))))


def rule_generator(seed: int, run: int, round_number: int) -> np.random.Generator:
    """The generator of a strategy's rule in one round of one run, such as for the noise of a private sum."""
    return stream(seed, "strategy rule", run=run, round_number=round_number)


class Streams:
    """The streams of one purpose at many places, one after the other: for what is drawn thousands of times a second.

    One generator is moved from place to place, which takes a tenth of the time of making one: Philox (Salmon et al.,
    2011) counts, so that a place is where it begins to count. Its draws are not those of `stream`. Guarantees:

    - equal arguments give equal draws, on every machine, whatever was drawn before;
    - places do not overlap: 2^64 blocks lie between a client and the next;
    - streams of other seeds and purposes have other keys (128 bits of a `SeedSequence`).

    Use each generator before requesting the next place.

    >>> streams = Streams(0, "batches")
    >>> first, again = [float(rng.random()) for rng in streams.generators(run=[1, 1], round_number=2, client=[3, 3])]
    >>> (other,) = [float(rng.random()) for rng in streams.generators(run=[1], round_number=2, client=[4])]
    >>> first == again, first == other
    (True, False)
    """

    def __init__(self, seed: int, purpose: str) -> None:
        key = np.random.SeedSequence((seed, *_purpose_words(purpose))).generate_state(2, np.uint64)
        self._bits = np.random.Philox(key=key)
        self._generator = np.random.Generator(self._bits)
        self._state: Any = self._bits.state
        self._state["has_uint32"] = 0

    def new_generator(self, *, run: int, round_number: int, client: int) -> np.random.Generator:
        """An independent generator at one place, for draws that are used later."""
        bits = np.random.Philox()
        self._state["state"]["counter"][:] = (0, client, round_number, run)
        bits.state = self._state
        return np.random.Generator(bits)

    def generators(
        self, *, run: Sequence[int], round_number: int, client: Sequence[int]
    ) -> Iterator[np.random.Generator]:
        """The generator at each place in turn."""
        counter = self._state["state"]["counter"]
        for r, k in zip(run, client, strict=True):
            counter[:] = (0, k, round_number, r)
            self._bits.state = self._state
            yield self._generator


@contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """A block in which the global generators of Python, numpy and torch are seeded; afterwards they are as before.

    For code of a user's that draws from them. torch counts only where it is imported.

    >>> draws = []
    >>> for _ in range(2):
    ...     with seeded_generators(5):
    ...         draws.append(random.random())
    >>> draws[0] == draws[1]
    True
    """
    before = generator_states()
    try:
        seed_generators(seed)
        yield
    finally:
        restore_generators(before)


def seed_generators(seed: int) -> None:
    """Seeds the global generators of Python, numpy and torch, each by a number of its own."""
    set_generators(*np.random.SeedSequence(seed).generate_state(3).tolist())


def set_generators(python: int, numpy: int, torch_seed: int) -> None:
    """Seeds the global generators of Python, numpy and torch by these numbers; torch only where it is imported."""
    random.seed(python)
    np.random.seed(numpy)  # noqa: NPY002
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.manual_seed(torch_seed)


def generator_states() -> tuple[Any, ...]:
    """The states of the global generators of Python, numpy and torch, for `restore_generators`."""
    torch: Any = sys.modules.get("torch")
    return random.getstate(), np.random.get_state(), None if torch is None else torch.get_rng_state()  # noqa: NPY002


def moved_generator(before: tuple[Any, ...]) -> str | None:
    """Which global generator something was drawn from since `generator_states` gave `before`; None if none was.

    >>> before = generator_states()
    >>> moved_generator(before) is None
    True
    >>> with seeded_generators(0):
    ...     moved_generator(before)
    'random'
    """
    python, numpy, torch_state = generator_states()
    if python != before[0]:
        return "random"
    if numpy[2:] != before[1][2:] or not np.array_equal(numpy[1], before[1][1]):
        return "numpy.random"
    return "torch" if before[2] is not None and not bool((torch_state == before[2]).all()) else None


def restore_generators(states: tuple[Any, ...]) -> None:
    """Puts the global generators back into these states; torch's stays where it was not imported then."""
    python, numpy, torch_state = states
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    if torch_state is not None:
        sys.modules["torch"].set_rng_state(torch_state)


def move_generator(generator: object, rng: np.random.Generator) -> None:
    """Moves a generator of Python, numpy or torch to a place that `rng` draws; leaves every other object alone.

    >>> mine = np.random.default_rng(0)
    >>> move_generator(mine, np.random.default_rng(1))
    >>> again = np.random.default_rng(7)
    >>> move_generator(again, np.random.default_rng(1))
    >>> mine.random() == again.random()
    True
    """
    torch: Any = sys.modules.get("torch")
    if isinstance(generator, np.random.Generator):
        bits = generator.bit_generator
        bits.state = type(bits)(int(rng.integers(2**63))).state
    elif isinstance(generator, np.random.RandomState):
        generator.seed(int(rng.integers(2**32)))
    elif isinstance(generator, random.Random):
        generator.seed(int(rng.integers(2**63)))
    elif torch is not None and isinstance(generator, torch.Generator):
        generator.manual_seed(int(rng.integers(2**63)))
