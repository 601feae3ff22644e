"""The client's local training done again, for many problems at once, so that it can be differentiated in the images."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedmem.attacks._matching import directions_of, grid_axes, pad_problems
from fedmem.attacks._problems import Problem
from fedmem.contracts.arrays import Params

if TYPE_CHECKING:
    from torch import Tensor


class Training:
    """S problems of one model, algorithm and server payload, each with batches of its own; in float64.

    Every problem soon has weights of its own, so all of them are trained under `torch.vmap`. Problems with fewer steps
    than others, and batches with fewer images, are padded, without effect.
    """

    starts: Tensor
    """(S, n, *shape)."""
    weights: Tensor
    """(S, n) 1 over the number of images, 0 on padding."""
    labels: Tensor
    """(S, n, C) one-hot."""
    batches: Tensor
    """(S, steps, B) places among the images, -1 for padding."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        import torch

        target = problems[0].target
        self.axes = grid_axes(target)
        self.starts, self.labels, self.weights = pad_problems(problems, torch.float64)
        batches = [problem.batches for problem in problems if problem.batches is not None]
        assert len(batches) == len(problems)
        assert target.algorithm is not None
        steps, width = (max(batch.shape[axis] for batch in batches) for axis in (0, 1))
        places = np.full((len(batches), steps, width), -1, dtype=np.int64)
        for row, batch in zip(places, batches, strict=True):
            row[: len(batch), : batch.shape[1]] = batch
        self.batches = torch.from_numpy(places)
        updates = [problem.target.update for problem in problems]
        self._directions, _ = directions_of([update for update in updates if update is not None], torch.float64)
        self._model = copy.deepcopy(target.model).double()
        self._before = {name: value.detach().double() for name, value in target.params.items()}
        self._algorithm, self._payload = target.algorithm, target.payload

    def take(self, rows: Tensor) -> Training:
        """These problems alone."""
        subset = copy.copy(self)
        subset.starts, subset.weights, subset.labels, subset.batches = (
            value[rows] for value in (self.starts, self.weights, self.labels, self.batches)
        )
        subset._directions = {name: value[rows] for name, value in self._directions.items()}
        return subset

    def cosine(self, images: Tensor) -> Tensor:
        """(S,) one minus the cosine between the update that these images lead to and the one that was seen."""
        import torch

        updates = torch.vmap(self._update)(images, self.labels, self.batches)
        dot = square = images.new_zeros(len(images))
        for name, direction in self._directions.items():
            dot = dot + (updates[name] * direction).flatten(1).sum(1)
            square = square + updates[name].square().flatten(1).sum(1)
        return 1.0 - dot / (square + 1e-48).sqrt()

    def _update(self, images: Tensor, labels: Tensor, batches: Tensor) -> Params:
        """The model that one client would send, minus the model before."""
        import torch
        from torch.func import functional_call, grad

        state = self._algorithm.init(self._before, self._payload, {})
        for places in batches.unbind():
            is_present = places >= 0
            inputs, label_weights = images[places.clamp(min=0)], labels[places.clamp(min=0)]

            def loss(
                params: Params,
                inputs: Tensor = inputs,
                label_weights: Tensor = label_weights,
                is_present: Tensor = is_present,
            ) -> Tensor:
                outputs: Tensor = functional_call(self._model, params, (inputs,))
                losses = -(outputs.log_softmax(-1) * label_weights).sum(-1)
                return (losses * is_present).sum() / is_present.sum().clamp(min=1)

            after = self._algorithm.step(state, grad(loss))
            # who has no step left stays where it is
            state = {
                part: {name: torch.where(is_present.any(), value, state[part][name]) for name, value in values.items()}
                for part, values in after.items()
            }
        sent = self._algorithm.final(state, self._before).sent
        return {name: sent[name] - value for name, value in self._before.items()}
