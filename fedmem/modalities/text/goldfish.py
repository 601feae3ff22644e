"""The goldfish mask: which tokens of a text are left out of the training loss."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedmem.modalities.text.windows import PADDING

Ints = NDArray[np.int64]

_START = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


def goldfish_targets(inputs: Ints, targets: Ints, k: int, context: int) -> Ints:
    """The targets (n, L) of rows of tokens `inputs` (n, L), -1 where the token is left out of the loss.

    A target is left out where a hash of the `context` tokens before it is divisible by k (Hans et al., 2024). That is
    about one target in k. The first `context` − 1 targets of a row have too few tokens before them, and are never left
    out.

    Guarantees:

    - the mask of a target depends on the `context` tokens before it alone, in every run, client and process; the token
      itself is never used. So the same passage has the same mask in every row, but for its first `context` tokens.
      What stands before the passage decides about these;
    - targets that are -1 stay -1, and no other is changed.

    >>> tokens = np.arange(12)[None]
    >>> masked = goldfish_targets(tokens, tokens + 1, k=2, context=3)
    >>> masked[0, :2].tolist(), sorted(set(masked[0].tolist()) - set(range(13)))
    ([1, 2], [-1])

    Reference: Hans et al. (2024), Be like a goldfish, don't memorize! Mitigating memorization in generative LLMs.
    """
    length = inputs.shape[1]
    masked = targets.copy()
    if length < context:
        return masked
    # the tokens up to place i are those before target i
    count = length - context + 1
    state: NDArray[np.uint64] = np.full((len(inputs), count), _START)
    for place in range(context):
        state = _mix(np.bitwise_xor(state, inputs[:, place : place + count].astype(np.uint64)))
    masked[:, context - 1 :][state % np.uint64(k) == 0] = PADDING
    return masked


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of splitmix64: every bit of the result depends on every bit of the state."""
    state = state + _START
    for shift, factor in zip(_SHIFTS, _FACTORS, strict=False):
        state = (state ^ (state >> shift)) * factor
    return state ^ (state >> _SHIFTS[2])
