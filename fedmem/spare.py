"""The reserve of real rows, set aside before partitioning, that injections and fill-ins are drawn from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedmem.errors import ComponentError
from fedmem.types import Examples, IntArray


class Spare:
    """Real rows that no client holds; a row is handed out once.

    Draws follow the labels of a client: each is a label drawn from `targets`, then a random free row of that label.
    Labels that have run out are drawn again from the others of `targets`; when none of these is left, any free row
    serves. `fork` gives an independent copy, so that each run draws its own fill-ins from what the injections left.

    Errors: `ComponentError` if more rows are wanted than are left.

    >>> rows = Examples(inputs=np.zeros((4, 1), np.float32), targets=np.array([0, 0, 1, 1]), ids=np.arange(4))
    >>> spare = Spare(rows)
    >>> spare.take_like(np.array([1, 1]), 2, np.random.default_rng(0)).targets.tolist(), len(spare)
    ([1, 1], 2)
    """

    def __init__(self, examples: Examples, free: NDArray[np.bool_] | None = None) -> None:
        self._examples = examples
        self._free = np.ones(len(examples), dtype=bool) if free is None else free.copy()

    def __len__(self) -> int:
        return int(np.count_nonzero(self._free))

    def fork(self) -> Spare:
        """A copy that can be drawn from without touching this one."""
        return Spare(self._examples, self._free)

    def left(self) -> Examples:
        """The rows that nobody has taken, in their original order."""
        return self._examples.take(np.flatnonzero(self._free))

    def positions_like(self, targets: IntArray, count: int, rng: np.random.Generator) -> IntArray:
        """`count` free rows, without replacement and in random order, with labels drawn like `targets`."""
        if count > len(self):
            raise ComponentError("injections", f"{count} spare rows are wanted but {len(self)} are left")
        width = 1 + int(max(self._examples.targets.max(initial=0), targets.max(initial=0)))
        odds = np.bincount(targets, minlength=width).astype(np.float64)
        taken: list[IntArray] = []
        missing = count
        # One pass draws all labels at once; only labels found empty are drawn again, which is what drawing one row
        # after the other and rejecting empty labels would give.
        while missing:
            free = rng.permutation(np.flatnonzero(self._free))
            labels = self._examples.targets[free]
            stock = np.bincount(labels, minlength=width)
            odds[stock == 0] = 0
            if odds.sum() == 0:
                chosen = free[:missing]
            else:
                wanted = rng.multinomial(missing, odds / odds.sum())
                order = np.argsort(labels, kind="stable")
                place = np.arange(len(free)) - np.repeat(np.cumsum(stock) - stock, stock)
                chosen = free[order[place < wanted[labels[order]]]]
            self._free[chosen] = False
            taken.append(chosen)
            missing -= len(chosen)
        return rng.permutation(np.concatenate(taken)) if taken else np.empty(0, dtype=np.int64)

    def take_like(self, targets: IntArray, count: int, rng: np.random.Generator) -> Examples:
        """The rows themselves; see `positions_like`."""
        return self._examples.take(self.positions_like(targets, count, rng))
