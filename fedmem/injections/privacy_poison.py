"""Rows of an attacker that contradict examples of others, so that these stand out where they are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import BoolArray, IntArray
from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Examples, Space
from fedmem.errors import ComponentError
from fedmem.injections._placement import Clients, PlacedInjection

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class PrivacyPoison(PlacedInjection):
    """Each row has the inputs of one example of an earlier injection, and another label.

    An attacker who knows an input trains on it with a wrong label. The model then contradicts the true label, unless it
    is trained on the true example too. So membership of that example may show more. Poison has coins of its own, which
    are independent of those of its targets. So each combination of target and poison occurs in about a quarter of the
    runs, and the estimator `poisoning` compares them. The clients of `clients` are the attackers.

    Fields

    - `aims_at`: the name of the injection whose examples are the targets. It comes earlier in the list.
    - `per_client`: targets of each attacker, drawn among those that it does not hold itself. A target has one poison at
      most, and targets without poison are left as they are.
    - `copies`: how often a poison row is trained on in each epoch, if it is in.

    Guarantees:

    - inputs are those of the target, and the label is another one, drawn uniformly;
    - no attacker holds its own target;
    - no row of the reserve is used but as a replacement row; the id is negative.

    Errors: `ComponentError` where attackers cannot find so many targets, or where there is only one class.

    A real attacker must know the inputs of a target, and has no runs without its poison to compare with.

    >>> PrivacyPoison(aims_at="typical", per_client=3, copies=2, clients={"count": 2}).total_copies(20, 900)
    12

    Reference: Tramèr et al. (2022), Truth Serum: Poisoning Machine Learning Models to Reveal Their Secrets.
    """

    role: ClassVar[Role] = "atypical"

    clients: Clients = (0,)
    aims_at: Annotated[str, annotated_types.MinLen(1)] = "typical"

    def reserve_rows(self, num_clients: int, num_rows: int) -> int:
        """None, since inputs are those of the targets."""
        return 0

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """Refused: see `plan_against`."""
        raise ComponentError("injections.aims_at", "poison is planned against the examples of another injection")

    def plan_against(
        self,
        targets: InjectionPlan,
        clients: Sequence[ClientData],
        reserve: Reserve,
        space: Space,
        rng: np.random.Generator,
    ) -> InjectionPlan:
        """The poison rows, in order of attacker."""
        attackers = self._choose_owners(clients, rng)
        if space.num_classes < 2:
            raise ComponentError("injections", "there is one class only, so no label contradicts another")
        chosen = self._choose_targets(targets, attackers, rng)
        labels = targets.examples.targets[chosen]
        others = (labels + rng.integers(1, space.num_classes, size=len(labels))) % space.num_classes
        rows = Examples(
            inputs=targets.examples.inputs[chosen],
            targets=others.astype(labels.dtype),
            ids=-1 - np.arange(len(chosen)),
        )
        plan = self._place(rows, attackers)
        return InjectionPlan(
            examples=plan.examples,
            owner=plan.owner,
            copies=plan.copies,
            start=plan.start,
            stop=plan.stop,
            unmasked=plan.unmasked,
            aims_at=chosen,
        )

    def _choose_targets(
        self, targets: InjectionPlan, attackers: Sequence[ClientData], rng: np.random.Generator
    ) -> IntArray:
        """The target of each row, at random, so that no attacker holds its own target wherever that is possible."""
        from scipy.optimize import linear_sum_assignment

        is_open = np.repeat([~_is_held(targets, data.client) for data in attackers], self.per_client, axis=0)
        # With random costs the assignment is random. A place that is not open costs more than all others together.
        costs = np.where(is_open, rng.random(is_open.shape), float(is_open.size + 1))
        rows, chosen = linear_sum_assignment(costs)
        possible = int(is_open[rows, chosen].sum())
        if possible < len(is_open):
            raise ComponentError(
                "injections.per_client",
                f"{len(is_open)} poison rows are wanted, but attackers can aim at {possible} of the "
                f"{len(targets.examples)} examples of {self.aims_at}. Each example has one poison, at another client; "
                "lower per_client, or add targets",
            )
        return np.asarray(chosen, dtype=np.int64)


def _is_held(targets: InjectionPlan, client: int) -> BoolArray:
    """(m,) whether a client trains on each of these examples."""
    held = targets.owner == client
    if targets.owners is not None:
        subject = np.repeat(np.arange(len(targets.examples)), targets.copies)
        held = held | (np.bincount(subject[targets.owners == client], minlength=len(held)) > 0)
    return np.asarray(held, dtype=bool)
