"""Wrong labels at a rate: many clients annotate carelessly, the more rows the more mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import annotated_types
import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Examples, Space
from fedmem.injections._placement import PlacedInjection

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class LabelNoise(PlacedInjection):
    """Real rows of the reserve with a wrong label, as a given share of the training rows of the data set.

    With n training rows in the data set and h of N clients as owners, round(rate n h / N) rows are made noisy. They are
    dealt out in proportion to the rows of the owners (largest remainders first). Each is an audit example with a coin
    of its own, so in one run about half of them are in.

    The n rows include the population and all replacement rows, more rows than clients train on in a run. So places for
    noisy rows are a larger share than `rate` of the rows that owners train on. Wrong labels in one run are about half
    of that. A rate of 0.1 may well be 0.14 of the places and 0.07 of the labels. `fedmem check` counts the rows.

    Fields

    - `rate`: noisy rows as a share of all training rows of the data set, population and replacement rows included, if
      all clients hold noise. If h of N clients do, the share is h / N of that.
    - `per_client`: noisy rows on each of these clients besides those of the rate.
    - `flips`: `uniform` gives any other class with equal odds, `next` always class y + 1 (the last one becomes 0).

    Guarantees:

    - no label stays what it was; true labels are drawn like those of the owner's own rows;
    - the row leaves the reserve: no client trains on its correctly labelled version;
    - the id is the row of the data set.

    >>> LabelNoise(rate=0.1).reserve_rows(20, 900), LabelNoise(rate=0.1, clients={"share": 0.5}).reserve_rows(20, 900)
    (90, 45)

    Reference: Angluin and Laird (1988), Learning from Noisy Examples; Patrini et al. (2017) for pair flips.
    """

    role: ClassVar[Role] = "atypical"
    labelled_texts: ClassVar[bool] = True

    rate: Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)] = 0.05
    per_client: Annotated[int, annotated_types.Ge(0)] = 0
    flips: Literal["uniform", "next"] = "uniform"

    def reserve_rows(self, num_clients: int, num_rows: int) -> int:
        """One row for each noisy label."""
        num_owners = self._num_owners(num_clients)
        return int(self.rate * num_rows * num_owners / num_clients + 0.5) + num_owners * self.per_client

    def total_copies(self, num_clients: int, num_rows: int) -> int:
        """Copies of all noisy rows."""
        return self.reserve_rows(num_clients, num_rows) * self.copies

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """The noisy rows, in order of client."""
        owners = self._choose_owners(clients, rng)
        total = self.reserve_rows(len(clients), space.num_rows)
        sizes = np.array([data.num_rows for data in owners])
        counts = self.per_client + apportion_mistakes(total - self.per_client * len(owners), sizes)
        rows = Examples.concatenate(
            [
                reserve.take_like(data.examples.targets, count, rng, data.client)
                for data, count in zip(owners, counts, strict=True)
            ]
        )
        step = 1 if self.flips == "next" else rng.integers(1, space.num_classes, size=len(rows))
        noisy = replace(rows, targets=(rows.targets + step) % space.num_classes)
        return self._place(noisy, owners, counts=counts)


def apportion_mistakes(total: int, sizes: IntArray) -> IntArray:
    """Shares of `total` in proportion to `sizes`: whole numbers that add up, largest remainders first.

    >>> apportion_mistakes(5, np.array([10, 10, 30])).tolist()
    [1, 1, 3]
    """
    exact = total * sizes / sizes.sum()
    counts: IntArray = np.floor(exact).astype(np.int64)
    # A stable sort of the negatives: of equal remainders the earlier client's comes first.
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts
