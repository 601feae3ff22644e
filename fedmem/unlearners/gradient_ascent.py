"""Clients go up the slope of the loss on their forgotten rows, and the server averages what they send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.unlearner import RunToForget, UnlearningContext
from fedmem.training.updates import clip_update
from fedmem.unlearners._clients import unlearn_at_clients
from fedmem.unlearners._layers import add


@dataclass(frozen=True, kw_only=True)
class GradientAscent:
    """NegGrad, and NegGrad+ with `retain`, at the clients with something to forget.

    Each of these clients starts from the model of its run. A step is

        θ ← θ + η clip((1 − α) ∇L_F − α ∇L_R),

    with L_F the mean loss on all of its forgotten rows, L_R that on all rows that it retains, and α = `retain`. The
    server averages the models of these clients alone, with the weights of the strategy. In a run in which nobody has
    anything to forget, the model stays as it is, to the last bit.

    - With `stop_at: population_loss`, a client stops as soon as L_F reaches the loss of its starting model on the
      population. Unseen examples have about this loss. This threshold is too low for examples that are harder than the
      population, such as wrong labels. `stop_at: steps` does all steps.
    - Gradients are exact, over all rows at once, and computed in float64. Nothing is drawn.
    - Running statistics of a network stay as they are.

    Fields:
        lr: η, the size of a step.
        steps: The largest number of steps of a client.
        clip: The largest L2 norm of a direction.
        retain: α, the weight of retained rows, from 0 (NegGrad) to below 1.
        stop_at: `population_loss` or `steps`.

    >>> GradientAscent().needs_population, GradientAscent(stop_at="steps").needs_population
    (True, False)

    Reference: Kurmanji et al. (2023), Towards Unbounded Machine Unlearning.
    """

    lr: Annotated[float, Gt(0)] = 0.05
    steps: Annotated[int, Gt(0)] = 50
    clip: Annotated[float, Gt(0)] = 1.0
    retain: Annotated[float, Ge(0), Lt(1)] = 0.0
    stop_at: Literal["population_loss", "steps"] = "population_loss"

    @property
    def needs_population(self) -> bool:
        """Whether it stops at the loss on the population."""
        return self.stop_at == "population_loss"

    def unlearn(self, context: UnlearningContext) -> Sequence[Params]:
        """The average of the models of clients with something to forget."""
        return unlearn_at_clients(context, self._ascend)

    def _ascend(self, context: UnlearningContext, run: RunToForget, client: int, rows: IntArray) -> Params:
        """The model of a client after its steps."""
        model = run.before
        retained = context.retained_rows(run.run, client) if self.retain else rows[:0]
        target = context.population_loss(run.run, client, model) if self.needs_population else None
        for _ in range(self.steps):
            loss, direction = context.gradient(run.run, client, model, rows)
            if target is not None and loss >= target:
                break
            if self.retain:
                direction = {name: (1 - self.retain) * value for name, value in direction.items()}
            if len(retained):
                _, other = context.gradient(run.run, client, model, retained)
                direction = {name: value - self.retain * other[name] for name, value in direction.items()}
            model = add(model, clip_update(direction, self.clip), self.lr)
        return model
