"""Projected gradient ascent: a client leaves the aggregate, and goes up its loss within a ball around the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Lt

from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.unlearner import RunToForget, UnlearningContext
from fedmem.errors import ComponentError
from fedmem.training.updates import clip_update
from fedmem.unlearners._clients import unlearn_at_clients
from fedmem.unlearners._layers import add, difference, norm

RANDOM_NETWORKS = 10
"""The number of random networks whose mean distance gives the radius."""


@dataclass(frozen=True, kw_only=True)
class Pga:
    """Projected gradient ascent of Halimi et al. (2022), at each client k with something to forget.

    The average of the other clients in the last round of the phase before is

        θ_ref = (θ − w_k θ_k) / (1 − w_k),

    with θ the aggregate, θ_k the model of client k in that round, and w_k its weight. With N equal clients
    it is (N θ − θ_k) / (N − 1). From there, the client takes steps with momentum up the mean loss on its forgotten
    rows. After each step it goes back to the nearest point with ‖θ' − θ_ref‖ ≤ δ. The server averages the models
    of these clients. The rounds of the phase follow, in which nobody trains on the rows. In a run with nothing to
    forget, the model stays as it is.

    - δ is by default a third of the mean distance of θ_ref to 10 random networks. These are the initial weights of the
      run, the values of each layer in random order.
    - Gradients are exact, over all forgotten rows at once, and computed in float64. The paper takes batches of 1,024.
    - θ must be an average, as with `fedavg`; a server with momentum has another aggregate.

    The first training must store the models of its last round: `save: {models: {rounds: [-1], levels: [local]}}`. Every
    client with something to forget must take part in it, as with the sampler `everyone`.

    Fields:
        lr: The size of a step.
        momentum: The share of the last step that is added to the next.
        clip: The largest L2 norm of a gradient.
        steps: The number of steps.
        radius: δ; left out, a third of the distance to random networks.

    >>> Pga(steps=3).stored_models(20)
    {'local': (20,)}

    Reference: Halimi et al. (2022), Federated Unlearning: How to Efficiently Erase a Client in FL?
    """

    lr: Annotated[float, Gt(0)] = 0.01
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    clip: Annotated[float, Gt(0)] = 5.0
    steps: Annotated[int, Gt(0)] = 50
    radius: Annotated[float, Gt(0)] | None = None

    def stored_models(self, rounds: int) -> Mapping[str, tuple[int, ...]]:
        """The models of clients in the last round."""
        return {"local": (rounds,)}

    def unlearn(self, context: UnlearningContext) -> Sequence[Params]:
        """The average of the models of clients with something to forget."""
        return unlearn_at_clients(context, self._ascend)

    def _ascend(self, context: UnlearningContext, run: RunToForget, client: int, rows: IntArray) -> Params:
        """The model of a client after its steps."""
        model = reference = _without(context, run, client)
        radius = self.radius or _radius(context, run, client, reference)
        velocity: Params = {}
        for _ in range(self.steps):
            _, slope = context.gradient(run.run, client, model, rows)
            clipped = clip_update(slope, self.clip)
            velocity = {
                name: value + self.momentum * velocity[name] if velocity else value for name, value in clipped.items()
            }
            model = _project(add(model, velocity, self.lr), reference, radius)
        return model


def _without(context: UnlearningContext, run: RunToForget, client: int) -> Params:
    """θ_ref of a client.

    Errors: `ComponentError` where it took no part in the last round, or nobody else did.
    """
    stored = context.stored_round(run.run, context.rounds_before)
    weights = context.weights(run.run, stored.sizes)
    place = f"run {run.run}, client {client}"
    if client not in weights:
        raise ComponentError(
            "unlearner",
            f"{place}: the client took no part in round {context.rounds_before}, so that pga cannot take it out of the "
            "average; write sampler: {kind: everyone}",
        )
    weight = weights[client]
    if not weight < 1:
        raise ComponentError(
            "unlearner", f"{place}: no other client took part in the last round, so that nothing is left without it"
        )
    return {
        name: ((value.double() - weight * stored.clients[client][name].double()) / (1 - weight)).to(value.dtype)
        for name, value in run.before.items()
    }


def _radius(context: UnlearningContext, run: RunToForget, client: int, reference: Params) -> float:
    """A third of the mean distance to random networks."""
    rng = context.stream("random networks", run.run, client)
    distances = []
    for _ in range(RANDOM_NETWORKS):
        shuffled = {
            name: value.reshape(-1)[rng.permutation(value.numel()).tolist()].reshape(value.shape)
            for name, value in run.initial.items()
        }
        distances.append(norm(difference(reference, shuffled)))
    return sum(distances) / len(distances) / 3


def _project(model: Params, centre: Params, radius: float) -> Params:
    """The nearest model to `model` with a distance of at most `radius` to `centre`.

    >>> import torch
    >>> _project({"w": torch.tensor([3.0, 4.0])}, {"w": torch.zeros(2)}, 1.0)["w"].tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    offset = difference(model, centre)
    distance = norm(offset)
    return model if distance <= radius else add(centre, offset, radius / distance)
