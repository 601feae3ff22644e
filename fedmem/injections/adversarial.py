"""Real rows moved, within a bound, to where a simple model errs; their label stays true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Space
from fedmem.injections._placement import PlacedInjection
from fedmem.injections._softmax import Softmax, fit

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class Adversarial(PlacedInjection):
    """x' = x + d with |d| <= epsilon (high - low) in every value, chosen to lower the margin of a reference model most.

    The reference is a softmax regression z = W x + b fitted to rows of the reserve that no client trains on. For a
    linear model the worst d against class c is known exactly: sign(w_c - w_y) at the bound. It is then clipped to the
    range from `low` to `high` of the data. The class c is the one that leaves the smallest margin z_y - z_c. No network
    is attacked. How adversarial x' is for the trained model depends on how well the perturbation transfers.

    Fields

    - `epsilon`: largest change of a value, as a share of the range of the data.
    - `reference_rows`: reserve rows that the reference model is fitted to; they are given to no client.

    Guarantees:

    - no value changes by more than the bound or leaves the range; no smaller margin can be reached within them;
    - the target is the true one, drawn like the labels of the owner's own rows;
    - a function of the rows and fields alone once the rows are drawn; needs no torch;
    - the id is the row of the data set.

    >>> Adversarial(per_client=2, reference_rows=100).reserve_rows(20, 900)
    140

    Reference: Goodfellow, Shlens and Szegedy (2015), Explaining and Harnessing Adversarial Examples.
    """

    role: ClassVar[Role] = "atypical"

    epsilon: Annotated[float, annotated_types.Gt(0), annotated_types.Le(1)] = 0.1
    reference_rows: Annotated[int, annotated_types.Ge(10)] = 100

    def reserve_rows(self, num_clients: int, num_rows: int) -> int:
        """One row for each example, and those of the reference model."""
        return super().reserve_rows(num_clients, num_rows) + self.reference_rows

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """The perturbed rows, in order of client."""
        owners = self._choose_owners(clients, rng)
        rows = self._rows(owners, reserve, rng)
        public = reserve.take_like(reserve.remaining().targets, self.reference_rows, rng)
        model = fit(public.inputs.reshape(len(public), -1), public.targets, space.num_classes)
        perturbed_inputs = self._perturb(rows.inputs.reshape(len(rows), -1), rows.targets, model, space)
        return self._place(replace(rows, inputs=perturbed_inputs.reshape(rows.inputs.shape)), owners)

    def _perturb(
        self, inputs: NDArray[np.float32], targets: IntArray, model: Softmax, space: Space
    ) -> NDArray[np.float32]:
        """(n, features) inputs with the smallest margin within the bound."""
        low, high = space.low.min(), space.high.max()
        bound = self.epsilon * float(high - low)
        perturbed_inputs = np.empty_like(inputs)
        for i, (row, target) in enumerate(zip(inputs.astype(np.float64), targets, strict=True)):
            differences = model.weights - model.weights[target]
            candidates = np.clip(row + bound * np.sign(differences), low, high)
            margins = -(differences * candidates).sum(axis=1) - (model.biases - model.biases[target])
            margins[target] = np.inf
            perturbed_inputs[i] = candidates[margins.argmin()]
        return perturbed_inputs
