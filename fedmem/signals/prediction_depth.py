"""Prediction depth: after which block of a network the neighbours of an example have the class that it predicts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.signals._observed_rounds import ObservedRounds
from fedmem.signals._support import choose_rows, own_rows, trained_support

if TYPE_CHECKING:
    from torch import Tensor

_PURPOSE = "prediction depth"

_TOLERANCE = 1e-10
"""Squared distances that differ by less than this share of the squared lengths are equal."""


@dataclass(frozen=True, kw_only=True)
class PredictionDepth(ObservedRounds):
    """The first probe from which on all probes agree with the prediction of the network, 0 to B + 2 with B blocks.

    Probe 0 is at the input, probe b after block b, and probe B + 1 at the logits. A probe looks at the k nearest rows
    of a support, in its features, by Euclidean distance. It agrees if more of them have the predicted class than any
    other class. A tie is no agreement. Rows as near as the k-th all count. The depth is B + 2 if the last probe
    disagrees.

    k is 30, or a third of the support if that is less. An example and its copies, changed ones included, are never its
    own neighbours. Maps of features are averaged down to 4 x 4 positions. By default models of other clients are not
    read. Depth says where a prediction forms, and not where memory is stored.

    Fields

    - `support`: the rows that may be neighbours. `clients` are all rows that the client of a model trains on in that
      run and round, with their training labels, wrong ones included. At the aggregate these are the rows of all
      clients, which no server has. `population` are rows that nobody trains on, with their labels, which a server may
      have.
    - `k`: the number of neighbours.
    - `rows`: how many rows a support has at most. From a larger one, rows are drawn at random, the same for all rounds.
    - `others`: read it at the models of clients that do not hold the example as well.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> PredictionDepth(support="population").needs_population
    True

    Reference: Baldock, Maennel and Neyshabur (2021), Deep learning through the lens of example difficulty.
    """

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(
            name="prediction_depth",
            title="prediction depth",
            means="The first probe from which on neighbours have the class that the network predicts.",
            is_not="It says where a prediction forms, not in which layer an example is stored.",
            range=(0.0, math.inf),
        )
    )
    texts: ClassVar[bool] = False
    min_blocks: ClassVar[int] = 2

    support: Literal["clients", "population"] = "clients"
    k: Annotated[int, Gt(0)] = 30
    rows: Annotated[int, Gt(0)] = 1000
    others: bool = False

    @property
    def needs_population(self) -> bool:
        """If that is the support."""
        return self.support == "population"

    @property
    def owners_only(self) -> bool:
        """Unless others are asked for."""
        return not self.others

    @property
    def model_rows(self) -> int:
        """The support."""
        return self.rows

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        from fedmem.training.blocks import features_of, hidden_blocks
        from fedmem.training.derivatives import double

        shape = len(context.transitions), len(context.examples)
        found = np.full(shape, np.nan)
        asked = np.ones(shape, dtype=bool) if self.others else context.is_owner()
        blocks = hidden_blocks(context.network, double(context.examples.inputs[:1]))
        for t, transition in enumerate(context.transitions):
            examples, (rows, support) = np.flatnonzero(asked[t]), self._support(context, transition)
            if not len(examples) or not len(support):
                continue
            inputs = double(np.concatenate([context.examples.inputs[examples], support.inputs]))
            hidden, logits = features_of(context.network, context.params(t), inputs, blocks)
            probes = [(part[: len(examples)], part[len(examples) :]) for part in (inputs.flatten(1), *hidden, logits)]
            is_itself = own_rows(context, rows)[examples]
            found[t, examples] = depths(probes, support.targets, is_itself, self.k)
        return {"prediction_depth": found}

    def _support(self, context: SignalContext, transition: Transition) -> tuple[IntArray, Examples]:
        """The rows of the support in the store of the federation, -1 for the population, and what they are."""
        federation = context.federation
        if self.support == "population":
            chosen = choose_rows(context, np.arange(len(federation.population)), self.rows, _PURPOSE)
            return np.full(len(chosen), -1), federation.population.take(chosen)
        rows = trained_support(context, transition, self.rows, _PURPOSE)
        return rows, federation.store.take(rows)


def depths(probes: list[tuple[Tensor, Tensor]], labels: IntArray, is_itself: BoolArray, k: int) -> FloatArray:
    """(m,) prediction depths; NaN where logits are not finite, or no support is left.

    Args:
        probes: Features (m, w) of the examples and (n, w) of the support, from the input to the logits.
        labels: (n,) of the support.
        is_itself: (m, n) pairs that are never neighbours.
        k: Neighbours; fewer if the support is small.

    Examples:
        >>> import torch
        >>> line = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
        >>> logits = torch.tensor([[1.0, 0.0]])
        >>> depths([(line[:1], line), (logits, logits.expand(4, 2))], np.array([0, 0, 1, 1]), np.zeros((1, 4), bool), 2)
        array([2.])
    """
    import torch

    logits = probes[-1][0]
    predicted = logits.argmax(dim=1).numpy()
    one_hot = np.eye(max(logits.shape[1], int(labels.max()) + 1))[labels]
    agrees = np.stack([_votes_agree(*probe, one_hot, predicted, torch.from_numpy(is_itself), k) for probe in probes])
    # the number of probes up to the last that disagrees
    depth = np.where(agrees.all(axis=0), 0, len(probes) - np.argmax(~agrees[::-1], axis=0)).astype(np.float64)
    has_value = logits.isfinite().all(dim=1).numpy() & ~is_itself.all(axis=1)
    return np.where(has_value, depth, np.nan)


def _votes_agree(
    examples: Tensor, support: Tensor, one_hot: FloatArray, predicted: IntArray, is_itself: Tensor, k: int
) -> BoolArray:
    """(m,) whether more of the nearest rows have the predicted class than any other."""
    import torch

    # measured from the mean, little is lost to rounding
    centre = support.mean(dim=0)
    examples, support = examples - centre, support - centre
    lengths = examples.square().sum(dim=1)[:, None] + support.square().sum(dim=1)
    distance = (lengths - 2 * examples @ support.T).masked_fill(is_itself, torch.inf)
    left = (~is_itself).sum(dim=1)
    neighbours = (left // 3).clamp(1, k)
    kth = distance.sort(dim=1).values.gather(1, neighbours[:, None] - 1)
    votes = (((distance <= kth + _TOLERANCE * lengths) & ~is_itself).double() @ torch.from_numpy(one_hot)).numpy()
    of_predicted = votes[np.arange(len(votes)), predicted]
    votes[np.arange(len(votes)), predicted] = -1
    return np.asarray(of_predicted > votes.max(axis=1), dtype=np.bool_)
