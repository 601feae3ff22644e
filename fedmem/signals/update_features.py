"""Features of an update, from which properties of the rows behind it may be inferred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Le

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.federation import Federation
from fedmem.contracts.signal import SignalContext
from fedmem.signals._observed_rounds import ObservedRounds

if TYPE_CHECKING:
    from torch import Tensor

NAME = "update_feature"
"""The quantity whose variants all of these are."""


@dataclass(frozen=True, kw_only=True)
class UpdateFeatures(ObservedRounds):
    """Features of the update Δ = sent − before of a client or of the aggregate, and facts about the rows behind it.

    Attacks read the first two. Both are linear in Δ, so that those of a sum of clients follow from those of its parts.

    - `update_feature.projection.i`: random projections S Δ / √q of all sent weights. The q rows of S have entries ±1
      from one named stream, the same for all runs, rounds and clients. The mean of their squared sum is ‖Δ‖².
    - `update_feature.first.i`: the mean over units of the first layer's update, by input. Above q inputs, q random
      projections of it.

    The others are known to no attacker. They give labels and controls. At the aggregate they are about the rows of all
    clients of the round.

    - `update_feature.label.c`: rows of class c; not there for texts.
    - `update_feature.weight`: the weight of the client in a sum, its number of rows, or 1 under uniform weighting.
    - `update_feature.rows`: the number of rows.

    It is stored once a model, with the first drawn row of the test set, and does not depend on that row. Tables have no
    rows of it. `property_inference` and `client_attribute` read it. An update that has diverged, and round 0, are NaN.

    Fields

    - `projections`: q, the number of random projections.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> UpdateFeatures(projections=16).set_rows
    1

    References: Melis, Song, De Cristofaro and Shmatikov (2019), Exploiting unintended feature leakage in collaborative
    learning. Achlioptas (2003), Database-friendly random projections.
    """

    texts: ClassVar[bool] = True
    set: ClassVar[str] = "test"
    set_rows: ClassVar[int] = 1
    passes: ClassVar[float] = 0.0
    reads_update: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = (NAME,)

    projections: Annotated[int, Gt(0), Le(1024)] = 64

    def variant_names(self, federation: Federation) -> Mapping[str, Sequence[str]]:
        """See the class."""
        first = min(self.projections, _inputs_of_first_layer(federation))
        labels = () if federation.store.several_targets else range(federation.num_classes)
        return {
            NAME: (
                *(f"projection.{i}" for i in range(self.projections)),
                *(f"first.{i}" for i in range(first)),
                *(f"label.{label}" for label in labels),
                "weight",
                "rows",
            )
        }

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """(T, n, V); each model for itself, so that no value depends on the models beside it."""
        from fedmem.training.margin_gradients import random_signs

        federation = context.federation
        names = [name for name in federation.initial if name in context.sent_names]
        size = sum(federation.initial[name].numel() for name in names)
        signs = random_signs(self.projections, size, context.stream("update features"))
        inputs = _inputs_of_first_layer(federation)
        first_signs = None
        if inputs > self.projections:
            first_signs = random_signs(self.projections, inputs, context.stream("first layer features"))
        rows = [
            np.concatenate(
                [self._of_update(context, position, names, signs, first_signs), self._of_rows(context, position)]
            )
            for position in range(len(context.transitions))
        ]
        return {NAME: np.repeat(np.stack(rows)[:, None], len(context.examples), axis=1)}

    def _of_update(
        self, context: SignalContext, position: int, names: Sequence[str], signs: Tensor, first_signs: Tensor | None
    ) -> FloatArray:
        """The projections, and the means of the first layer."""
        import torch

        from fedmem.training.margin_gradients import project

        transition = context.transitions[position]
        update = {
            name: (transition.sent[name].double() - transition.before[name].double()).detach().cpu() for name in names
        }
        flat = torch.cat([value.flatten() for value in update.values()])
        first_name = _first_layer(context.federation)
        if first_name in update:
            value = update[first_name]
            first = value.reshape(len(value), -1).mean(dim=0)
        else:
            first = torch.zeros(_inputs_of_first_layer(context.federation), dtype=torch.float64)
        if first_signs is not None:
            first = project(first_signs, first)
        features = torch.cat([project(signs, flat), first])
        if not transition.round or not bool(features.isfinite().all()):
            return np.full(len(features), np.nan)
        return np.asarray(features.numpy())

    def _of_rows(self, context: SignalContext, position: int) -> FloatArray:
        """Labels, weight and number of the rows behind an update."""
        transition, federation = context.transitions[position], context.federation
        classes = 0 if federation.store.several_targets else federation.num_classes
        clients = (transition.client,) if transition.level == "local" else transition.clients
        if not clients:
            return np.full(classes + 2, np.nan)
        rows = np.concatenate([federation.rows(transition.run, client, transition.round) for client in clients])
        labels = np.bincount(federation.store.targets[rows], minlength=classes) if classes else np.zeros(0)
        weight = transition.num_examples if context.weighting == "size" else len(clients)
        return np.array([*labels, weight, len(rows)], dtype=np.float64)


def _first_layer(federation: Federation) -> str:
    """The first trained parameter that is no vector; the first one where all are."""
    names = [name for name in federation.initial if name not in federation.mode.statistics]
    return next((name for name in names if federation.initial[name].shape[1:]), names[0])


def _inputs_of_first_layer(federation: Federation) -> int:
    """The entries of a unit of it; 1 for a vector."""
    value = federation.initial[_first_layer(federation)]
    return value.numel() // len(value) if value.shape[1:] else 1
