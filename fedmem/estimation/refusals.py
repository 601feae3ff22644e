"""Which estimators cannot read a bank, whatever scenario trained it."""

from __future__ import annotations

from collections.abc import Sequence

from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.coin_groups import explain_groups, not_counting_groups
from fedmem.contracts.coin_law_support import explain_law, not_reading_law
from fedmem.contracts.estimator import Estimator
from fedmem.contracts.families import kind_of
from fedmem.contracts.needs import needs_of
from fedmem.errors import ComponentError


def require_readable(audit: AuditSet, estimators: Sequence[Estimator]) -> None:
    """Checks that estimators suit the coins of an audit set.

    Raises:
        ComponentError: if an estimator needs more runs, or does not support the law of the coins. Also if it takes each
            example as drawn alone where examples are in or out together.
    """
    groups = [kind for kind in audit.kinds if audit.shares_coins(audit.kind == kind)]
    for number, estimator in enumerate(estimators):
        path, needed, runs = f"estimators[{number}]", needs_of(estimator).min_runs, audit.num_coin_rows
        if runs < needed:
            name = kind_of(estimator)
            raise ComponentError(
                path, f"{name} needs at least {needed} runs, but runs is {runs}; raise runs or leave {name} out"
            )
        for place, part in not_counting_groups(estimator, path) if groups else ():
            raise ComponentError(place, explain_groups(part, ", ".join(groups)))
        for place, part in not_reading_law(estimator, path, audit.coin_law.law):
            raise ComponentError(place, explain_law(part, audit.coin_law.law))
