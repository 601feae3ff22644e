"""Gradient accounting: how hard examples of a kind pull at each layer, and whether against all other rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray, Params
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Level, Measurement, Reading
from fedmem.contracts.model import frozen_tensors
from fedmem.contracts.probe import Context
from fedmem.errors import ComponentError
from fedmem.modalities.loss import example_losses
from fedmem.probes._leakage_summary import summed_up
from fedmem.probes._measures import OUT

_RATIO = Measure(
    name="gradient_ratio",
    title="gradient ratio",
    means="The length of the summed gradient of the examples of a kind, divided by that of the reference rows.",
    is_not="It is not memorisation. With a ratio of 1 and a cosine of −1, the two sums cancel each other.",
    range=(0.0, math.inf),
    direction="neither",
    section="none",
)
_COSINE = Measure(
    name="gradient_cosine",
    title="gradient cosine",
    means="The cosine of the summed gradient of the examples of a kind and that of the reference rows. At −1 they have "
    "opposite directions.",
    is_not="It is not memorisation: opposing gradients show a conflict and not its result.",
    range=(-1.0, 1.0),
    direction="neither",
    section="none",
)


@dataclass(frozen=True, kw_only=True)
class GradientAccounting:
    """Summed gradients of a kind against those of reference rows, by layer and round (Maini et al., 2023).

    Let g_K = Σ ∇ℓ over the examples of kind K, and g_0 the same over the reference rows. For each layer, and for the
    whole network (no label `layer`):

    - `gradient_ratio`: |g_K| / |g_0|. Sums count examples: a kind of few examples whose ratio is near 1 pulls as hard
      as all reference rows together;
    - `gradient_cosine`: of g_K and g_0. About −1 means that they oppose each other.

    Gradients are those of the losses at the model before the transition, in float64. That is the model that a client
    received, or the aggregate of the round before. They have no weight decay, and batches play no role. An example
    counts once, whatever its copies. At a client the examples are its own, and at the aggregate those of the cohort.

    Examples are those that are in, in their window. With the label `coin` = `out` they are those that are out, as a
    control. Training on an example lowers its own gradient, and the difference of in and out shows that. The value is
    undefined where a kind has no example, or where a sum is 0.

    `summarise` gives means by kind, geometric ones of ratios, and the difference in − out of cosines. Intervals (95 %)
    are Student's, clustered by client and run.

    Fields

    - `reference`: the kind of audit example whose sum is g_0, in for in and out for out. If it is left out, g_0 is over
      all base rows of the client or the cohort.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `runs`: how many runs are looked at, from run 0 on.
    - `levels`: `local`, `global` or both.

    >>> GradientAccounting().levels
    ('local', 'global')

    Reference: Maini, Mozer, Sedghi, Lipton, Kolter and Zhang (2023), Can neural network memorization be localized?
    """

    measures: ClassVar[tuple[Measure, ...]] = (_RATIO, _COSINE)
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label("layer", "text", "the module whose part is read"),
        Label("reference", "text", "the kind of example whose gradients are compared with; base rows without it"),
    )
    compares_held_out: ClassVar[bool] = True

    reference: str | None = None
    every: Annotated[int, Gt(0)] | None = None
    runs: Annotated[int, Gt(0)] = 8
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Two readings of each layer, kind and coin at each transition of the first runs."""
        audit = context.federation.audit
        if self.reference is not None and self.reference not in audit.kinds:
            raise ComponentError(
                "probes.reference",
                f"{self.reference!r} is no kind of audit example; use one of {', '.join(audit.kinds)}, or leave "
                "reference out to compare with base rows",
            )
        return [
            (transition, reading)
            for transition in transitions
            if transition.round > 0 and transition.run < self.runs
            for reading in self._of(transition, context)
        ]

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means by kind and differences of cosines, for each round and over all rounds."""
        ratios = [row for row in measurements if row.reading.metric == _RATIO.name]
        logs = [replace(row, reading=replace(row.reading, value=_log(row.reading.value))) for row in ratios]
        of_logs = summed_up(logs, [replace(_RATIO, range=(-math.inf, math.inf))])
        means = [_from_logs(row) for row in of_logs if row.reading.metric == _RATIO.name]
        cosines = [row for row in measurements if row.reading.metric == _COSINE.name]
        return [*means, *summed_up(cosines, [_COSINE])]

    def _of(self, transition: Transition, context: Context) -> Iterator[Reading]:
        """The readings of one transition."""
        federation = context.federation
        audit = federation.audit
        is_local = transition.level == "local"
        clients = (transition.client,) if is_local else transition.clients
        is_here = np.isin(audit.owner, clients) & audit.is_active(transition.round)
        base = np.concatenate([np.empty(0, np.int64), *(federation.base[client] for client in clients)])
        sums = _Sums(transition.before, context)
        for coin in (None, OUT):
            side: BoolArray = is_here & (audit.is_in[transition.run] == (coin is None))
            of_kind = {
                kind: federation.audit_start + np.flatnonzero(side & (audit.kind == kind)) for kind in audit.kinds
            }
            against = sums.of(base if self.reference is None else of_kind[self.reference])
            for kind, rows in of_kind.items():
                if kind == self.reference:
                    continue
                labels = Labels.of(kind=kind, coin=coin, reference=self.reference)
                for layer, (ratio, cosine) in _compare(sums.of(rows), against).items():
                    about = labels.plus(layer=layer)
                    yield Reading(metric=_RATIO.name, value=ratio, n=len(rows), labels=about)
                    yield Reading(metric=_COSINE.name, value=cosine, n=len(rows), labels=about)


class _Sums:
    """Summed gradients of rows of the store at one model, in float64."""

    def __init__(self, params: Params, context: Context) -> None:
        self._federation = context.federation
        model = context.federation.model
        from fedmem.training.derivatives import split_entries

        double = {name: value.detach().to("cpu").double() for name, value in params.items()}
        self._trained, constant = split_entries(model, double)
        frozen = {name: value.double() for name, value in frozen_tensors(model).items() if value.is_floating_point()}
        self._constant = frozen | constant

    def of(self, rows: IntArray) -> Mapping[str, FloatArray]:
        """Layer -> the sum over these rows (d,), and that of the whole network under an empty name; 0 without rows."""
        import torch
        from torch.func import functional_call

        from fedmem.training.derivatives import double

        store = self._federation.store
        sums = {name: np.zeros(value.numel()) for name, value in self._trained.items()}
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            leaves = {name: value.clone().requires_grad_() for name, value in self._trained.items()}
            with torch.enable_grad():
                outputs = functional_call(
                    self._federation.model, self._constant | leaves, (double(store.inputs[part]),)
                )
                loss = example_losses(outputs, torch.from_numpy(store.targets[part])).sum()
                gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
            for name, value in zip(leaves, gradients, strict=True):
                sums[name] += value.detach().numpy().ravel()
        layers: dict[str, list[FloatArray]] = {}
        for name, summed in sums.items():
            layers.setdefault(name.rpartition(".")[0] or name, []).append(summed)
        return {"": np.concatenate(list(sums.values()))} | {name: np.concatenate(v) for name, v in layers.items()}


def _compare(first: Mapping[str, FloatArray], other: Mapping[str, FloatArray]) -> dict[str, tuple[float, float]]:
    """Layer -> ratio of the lengths and cosine; NaN where a sum is 0."""
    compared = {}
    for layer, of_layer in first.items():
        lengths = float(np.linalg.norm(of_layer)), float(np.linalg.norm(other[layer]))
        if min(lengths) > 0:
            cosine = float(of_layer @ other[layer]) / (lengths[0] * lengths[1])
            compared[layer] = lengths[0] / lengths[1], min(1.0, max(-1.0, cosine))
        else:
            compared[layer] = math.nan, math.nan
    return compared


def _log(ratio: float) -> float:
    return math.log(ratio) if ratio > 0 else math.nan


def _from_logs(row: Measurement) -> Measurement:
    """The geometric mean of a mean of logarithms."""
    reading = row.reading
    value, low, high = (float(np.exp(end)) for end in (reading.value, reading.low, reading.high))
    return replace(row, reading=replace(reading, value=value, low=low, high=high))


_ROWS = 256
"""Rows that go through the network at once."""
