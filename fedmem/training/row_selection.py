"""The rows that a client keeps in a participation, by scores at the model that it is sent."""

from __future__ import annotations

from copy import deepcopy
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.federation import Federation
from fedmem.contracts.selection import Selection
from fedmem.modalities.loss import example_losses
from fedmem.seeding import stream

_AT_ONCE = 1024


class RowSelection:
    """Finds the rows that clients keep.

    Scores of a client are formed from its rows alone, so that they do not depend on the clients beside it.

    Args:
        federation: The rows and the network.
        selection: How rows are ranked, and how many are left out.
        seed: The seed of the streams of `random`.
    """

    def __init__(self, federation: Federation, selection: Selection, seed: int) -> None:
        self._federation, self._selection, self._seed = federation, selection, seed

    def kept(self, run: int, client: int, rows: IntArray, model: Params) -> IntArray:
        """Ascending positions among these rows of those that are trained on.

        Scores that are no number, as of a model that has diverged, count as the largest.
        """
        count = self._selection.kept(len(rows))
        if count == len(rows):
            return np.arange(len(rows))
        scores = self._scores(run, client, rows, model)
        order = np.argsort(np.where(np.isnan(scores), np.inf, scores), kind="stable")
        return np.sort(order[:count])

    def _scores(self, run: int, client: int, rows: IntArray, model: Params) -> FloatArray:
        if self._selection.by == "random":
            return stream(self._seed, "row selection", run=run, client=client).random(len(rows))
        parts = [self._scores_at(rows[i : i + _AT_ONCE], model) for i in range(0, len(rows), _AT_ONCE)]
        return np.concatenate(parts)

    def _scores_at(self, rows: IntArray, model: Params) -> FloatArray:
        store = self._federation.store
        targets = torch.from_numpy(store.targets[rows])
        with torch.no_grad():
            params = {name: value.cpu() for name, value in model.items()}
            outputs: Tensor = functional_call(self._network, params, (torch.from_numpy(store.inputs[rows]),))
        if self._selection.by == "loss":
            return np.asarray(example_losses(outputs.double(), targets).numpy())
        errors = outputs.double().softmax(dim=1)
        errors[torch.arange(len(rows)), targets] -= 1.0
        return np.asarray(errors.norm(dim=1).numpy())

    @cached_property
    def _network(self) -> nn.Module:
        return deepcopy(self._federation.model).cpu().eval()
