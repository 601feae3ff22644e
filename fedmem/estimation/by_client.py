"""The estimates for the audit examples of each owning client: the same estimates, client by client."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.estimator import Estimate, Estimator, View
from fedmem.contracts.evidence import Bank
from fedmem.contracts.measurement import Labels, Level
from fedmem.estimation.estimates import count_clusters, estimates_by_example, hide_examples, over_draws
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.two_way import interval
from fedmem.estimation.views import views
from fedmem.seeding import stream

_LEVEL = 0.05
"""The chance that any of the adjusted intervals of one family misses its value."""


@dataclass(frozen=True, kw_only=True)
class ClientEstimate:
    """One measure over the audit examples of one kind that a client owns, in the summary.

    Attributes:
        client: The owning client.
        level: Whose models are read: `local` (the owning client's own) or `global`.
        metric: The measure; `labels` tell its variants apart.
        kind: Of the audit examples.
        value: The estimate; NaN where the client has no measured example. `null` is its value without memorisation.
        interval: Low and high at 95 %, of this client alone; NaN where there are fewer than 8 examples or runs.
        adjusted: Low and high that hold for all clients of the family together (Bonferroni), in the normal limit. In
            simulations of five clients with 10 examples each and 16 runs, any of them misses in 7 to 11 %.
        n: The number of examples.
        p: Of no memorisation of these examples; `p_adjusted` is p times `tests`, at most 1.
        tests: The size of the family: clients that own examples of the kind.
    """

    client: int
    level: Level
    metric: str
    labels: Labels
    kind: str
    value: float = math.nan
    null: float = math.nan
    interval: tuple[float, float] = (math.nan, math.nan)
    adjusted: tuple[float, float] = (math.nan, math.nan)
    n: int = 0
    p: float = math.nan
    p_adjusted: float = math.nan
    tests: int


def estimates_by_client(bank: Bank, estimators: Sequence[Estimator], metric: str, deals: int) -> list[ClientEstimate]:
    """A measure for each owning client, level, kind and variant, in this order; p is from `deals` re-dealt coins.

    Guarantees:

    - each is what the estimator finds where all audit examples but the client's have no evidence;
    - a client that owns examples of a kind has a row, without a value where none of them is measured;
    - a measure that uses other evidence than that of the client's examples has no rows.
    """
    audit = bank.audit
    redeals = permute_coins(audit, deals, stream(bank.seed, "redeals"))
    clients = np.unique(audit.owner[audit.owner >= 0]).tolist()
    # the false positive rates of clients differ with the number of their examples
    rows: dict[tuple[Level, str, Labels], dict[int, list[ClientEstimate]]] = {}
    owning = {kind: np.unique(audit.owner[(audit.kind == kind) & (audit.owner >= 0)]).tolist() for kind in audit.kinds}
    summaries = [view for view in views(bank, redeals) if view.round is None and view.place != "others"]
    for view in sorted(summaries, key=lambda view: view.level != "local"):
        for client in clients:
            shown = hide_examples(view, audit.owner != client)
            for estimator in estimators:
                for found in _own_estimates(estimator, shown, metric, client):
                    family = rows.setdefault((view.level, found.kind, found.labels.without("fpr")), {})
                    family.setdefault(client, []).append(_row(shown, found, client, len(owning[found.kind])))
    return [
        row
        for (level, kind, labels), family in rows.items()
        for client in owning[kind]
        for row in family.get(client)
        or [
            ClientEstimate(client=client, level=level, metric=metric, labels=labels, kind=kind, tests=len(owning[kind]))
        ]
    ]


def _own_estimates(estimator: Estimator, view: View, metric: str, client: int) -> Iterator[Estimate]:
    """The estimates of a measure that rest on the examples of a client alone."""
    is_other = view.audit.owner != client
    for found in estimates_by_example(estimator, view):
        cells, examples = found.influence.cells, found.influence.examples
        if found.metric == metric and not (cells[:, is_other].any() or examples[is_other].any()):
            yield over_draws(found, view.audit)


def _row(view: View, found: Estimate, client: int, tests: int) -> ClientEstimate:
    ends = [
        interval(found.value, found.influence, count_clusters(view, found), found.bounds, 1 - _LEVEL / size)
        for size in (1, tests)
    ]
    return ClientEstimate(
        client=client,
        level=view.level,
        metric=found.metric,
        labels=found.labels,
        kind=found.kind,
        value=found.value,
        null=found.null,
        interval=ends[0],
        adjusted=ends[1],
        n=found.n,
        p=found.p,
        p_adjusted=min(1.0, found.p * tests) if found.p == found.p else math.nan,
        tests=tests,
    )
