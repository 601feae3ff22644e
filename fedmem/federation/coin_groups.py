"""Examples that are in or out together: which coin decides about each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fedmem.contracts.arrays import BoolArray, IntArray
from fedmem.contracts.audit_set import AuditSet, InjectionPlan
from fedmem.contracts.events import count as count_with_noun
from fedmem.contracts.injection import Injection, injection_declaration
from fedmem.errors import ComponentError
from fedmem.estimation.coin_groups import effective_groups
from fedmem.estimation.two_way import FEWEST


def coin_groups(injections: Sequence[Injection], additions: Sequence[InjectionPlan]) -> IntArray | None:
    """(m,) the position of the first example that has the same coin as each example; None where no two have.

    Errors: `ComponentError` where an injection draws by owning client, and one of its examples has none.
    """
    groups, start = [np.empty(0, dtype=np.int64)], 0
    for i, (injection, part) in enumerate(zip(injections, additions, strict=True)):
        included, count = injection_declaration(injection).included, len(part.examples)
        first = np.arange(count)
        if included == "by_client":
            if count and part.owner.min() < 0:
                raise ComponentError(
                    f"injections[{i}].included",
                    f"by_client draws for all examples of an owning client at once, but {injection.name} has examples "
                    "without an owning client; write each or together",
                )
            _, place, owner = np.unique(part.owner, return_index=True, return_inverse=True)
            first = place[owner.reshape(-1)]
        groups.append(start + (first if included != "together" else np.zeros(count, dtype=np.int64)))
        start += count
    group = np.concatenate(groups)
    return None if np.array_equal(group, np.arange(start)) else group


def share_coins(coins: BoolArray, group: IntArray | None) -> BoolArray:
    """Coins (R, m) with that of the first example of each group for all of it; those of others stay as they are."""
    return coins if group is None else coins[:, group]


def groups_warnings(audit: AuditSet) -> Iterator[str]:
    """Warnings for a reader of the values of each kind whose examples are in or out together."""
    for kind in audit.kinds:
        rows = np.flatnonzero(audit.kind == kind)
        if not audit.shares_coins(rows):
            continue
        draws = audit.num_coin_groups(rows)
        few = "" if effective_groups(audit, rows) >= FEWEST else ". Intervals are about these examples, over runs alone"
        yield (
            f"{kind}: {len(rows)} examples are in or out together in {count_with_noun(draws, 'draw')} of random "
            f"inclusion. Values are the effect of all examples of a draw, not that of each example on itself{few}"
        )
