"""TracIn on itself: how much training on an example lowered its own loss, from gradients at checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.client import ScheduledClient
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, SignalLevel, signal_measures
from fedmem.signals._influence_targets import InfluenceTargets, NumTargets
from fedmem.signals._objective import client_shares, copies_at


@dataclass(frozen=True, kw_only=True)
class TracIn:
    """Self-influence of an example by TracIn in its checkpoint form, in nats, from 0.

    To first order it is the fall of the loss on the example by the steps that were trained on it. It is the influence
    of the example's *presence*, so that larger means more influence.

    - Local, of the last participation of a client k: (Σ_s η_s) c/n_k ‖∇ℓ(θ_{r−1})‖². The client takes K steps of rates
      η_s in the round, and holds c copies among its n_k rows.
    - Global, over rounds: Σ_r Σ_k p_k (Σ_s η_s) c/n_k ‖∇ℓ(θ_{r−1})‖². The clients k are those of the cohort that hold
      the example. The weight p_k is that of client k in the mean of the cohort: by rows, or equal.

    θ_{r−1} is the aggregate that the round begins with, for all steps of the round. In place of the real batches each
    step counts by 1/n_k, which is the mean over orders of the rows. Only rounds in which the example is trained on
    count (its `start` and `stop`). Momentum, clipping, a proximal term, and a server step other than the mean are not
    in the formula. Weight decay is no part of the gradient.

    Only observed rounds at which the signal is read are checkpoints. Write `observe: {every: 1}` for the sum over all
    rounds; otherwise the global value is a part of it. Models of runs without the example have the value that they
    would have if it were trained on. It is 0 at the aggregate until an owner takes part. It is NaN where a checkpoint
    has diverged.

    With `targets`, the influence of each audit example j on each target i is stored as well, `tracin_on`. It has
    ⟨∇ℓ_j, ∇ℓ_i⟩ in the place of ‖∇ℓ‖². It is positive where the presence of j lowers the loss on i. With full batches
    and a small rate, its sum over all rows j is the fall of the loss on i by a round.

    The probe `leave_one_out` measures the same effect of one participation exactly. Both agree for small rates where
    the batches of whole epochs are equally large, without what is not in the formula. In a smaller last batch a row
    counts for more than 1/n_k, as in the probe `stepwise_tracin`. Losses are those of all tokens, also under the
    goldfish loss.

    Fields

    - `targets`: on how many examples influence is read, half of them audit examples and half test examples.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> TracIn.measures[0].unit
    'nats'

    Reference: Pruthi, Liu, Kale and Sundararajan (2020), Estimating training data influence by tracing gradient
    descent.
    """

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(
            name="tracin",
            title="TracIn on itself",
            means="First-order fall of the loss on an example by the steps that were trained on it.",
            is_not="It is an approximation by gradients at checkpoints, and no effect that was observed.",
            unit="nats",
            range=(0.0, float("inf")),
            digits=4,
            trained_on="lower",
        )
    )
    texts: ClassVar[bool] = True
    owners_only: ClassVar[bool] = True
    reads_update: ClassVar[bool] = True
    reads_training: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("tracin_on",)

    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[SignalLevel, ...] = ("local", "global")
    targets: NumTargets = 0

    def variant_names(self, federation: Federation) -> Mapping[str, Sequence[str]]:
        """One variant for each target."""
        return dict.fromkeys(self.variants, InfluenceTargets.draw(federation, self.targets).names)

    def passes_in(self, federation: Federation) -> tuple[float, float]:
        """A gradient of each example and target; an inner product costs a tenth of a pass, about."""
        return 3.0 + self.targets / 10, 3.0 * self.targets

    def start(self, context: SignalContext, position: int) -> dict[str, NDArray[Any]]:
        """No round yet."""
        count = len(InfluenceTargets.draw(context.federation, self.targets))
        return {"sum": np.zeros(len(context.examples)), "on": np.zeros((len(context.examples), count))}

    def update(self, state: dict[str, NDArray[Any]], context: SignalContext, position: int) -> dict[str, NDArray[Any]]:
        """The sum with one more round of the aggregate, or the last round of a client alone."""
        transition = context.transitions[position]
        if transition.round == 0:
            return state
        is_local = transition.level == "local"
        clients = np.array([transition.client] if is_local else sorted(transition.clients), dtype=np.int64)
        factors = _distances(context, transition.run, clients, transition.round)
        # where nothing is trained on, a checkpoint that has diverged has no effect
        added, on = np.zeros_like(state["sum"]), np.zeros_like(state["on"])
        rows = np.flatnonzero(factors)
        if len(rows):
            squares = np.sum(list(context.squared_gradients([transition.before]).values()), axis=0)[0]
            added[rows] = factors[rows] * squares[rows]
        if on[rows].size:
            targets = InfluenceTargets.draw(context.federation, self.targets).examples(context.federation)
            products = context.gradient_products(transition.before, context.examples.take(rows), targets)
            on[rows] = factors[rows, None] * products
        if is_local:
            is_owner = context.is_owner()[position]
            return {"sum": np.where(is_owner, added, np.nan), "on": np.where(is_owner[:, None], on, np.nan)}
        return {"sum": state["sum"] + added, "on": state["on"] + on}

    def values_of(self, state: Mapping[str, NDArray[Any]], context: SignalContext) -> Mapping[str, FloatArray]:
        """The sum so far."""
        return {"tracin": state["sum"], "tracin_on": state["on"]}


def _distances(context: SignalContext, run: int, clients: IntArray, round_number: int) -> FloatArray:
    """(m,) Σ_k p_k (Σ_s η_s) c/n_k: how far the mean of these clients goes down the gradient of each example."""
    assert isinstance(context.client, ScheduledClient)
    federation = context.federation
    sizes = np.array([len(federation.rows(run, client, round_number)) for client in clients.tolist()], dtype=np.float64)
    distances = np.array(
        [
            context.client.schedule(round_number, context.client.num_steps(size)).distance if size else 0.0
            for size in sizes.astype(int).tolist()
        ]
    )
    per_copy = client_shares(sizes, context.weighting) * distances / np.maximum(sizes, 1.0)
    copies = copies_at(federation.audit, clients) * federation.audit.is_active(round_number)
    return np.asarray(per_copy @ copies)
