"""Sliced mutual information: what features after each block of a network say about the labels of a set of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, Label, Labels, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.probes._clusters import mean_over_runs

if TYPE_CHECKING:
    from torch import nn

QUANTILES = 16
"""Into how many parts of equal size a direction is cut."""

_SET = Label("set", "text", "the rows that are read: base rows, or a kind of audit example")
_BLOCK = Label("block", "whole", "how many blocks of the network come before: 0 is the input, the last one the logits")
_TARGETS = Label("targets", "text", "true: the labels of the data set, where clients train on other labels")


@dataclass(frozen=True, kw_only=True)
class SlicedInformation:
    """SI(T; Y) = E_φ I(φᵀT; Y) in bits, of features T and labels Y of a set of rows; φ is uniform on the sphere.

    The label `block` says where T is read: 0 is the input, b the output of block b, and the last one the logits. The
    label `set` says whose: `base` are base rows of the place, and audit examples are read by kind. Those of a kind that
    the run trains on at that place and those that a coin left out (`coin` = `out`) are two sets. Where a kind has other
    labels than the data set, `targets` = `true` reads those of the data set.

    Each φᵀT is cut into 16 quantiles, and I is the mutual information of the table of quantiles and labels. A table of
    n rows is biased upwards. The mean over shuffled labels is subtracted, so that 0 means nothing, and small values may
    be negative. Where features tell much, a table has less bias than that, and the value is too small. Of ten labels
    that one direction determines, 60 rows give 1.3 bits and 1000 rows 2.8, instead of 3.3. So compare sets of alike
    size. The interval is over rows, from the deviations of log p(t, y) / (p(t) p(y)). `summarise` has means over
    models, with an interval over runs.

    This is about a set, not about an example. Wongso et al. find that sets with random labels have little of it early.
    A set with fewer rows than `min_rows` is left out, and so is a set with one label.

    Fields

    - `directions`: how many φ are drawn. The same for all models.
    - `shuffles`: how often labels are shuffled.
    - `rows`: how many rows of a set are read at most.
    - `min_rows`: the smallest set that is read.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both.

    >>> SlicedInformation().directions
    200

    Reference: Goldfeld and Greenewald (2021), Sliced mutual information: a scalable measure of statistical dependence.
    With memorisation: Wongso, Ghosh and Motani (2023), Using sliced mutual information to study memorization and
    generalization in deep neural networks.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="sliced_information",
            title="sliced mutual information",
            means="Bits about the label in one random direction of the features, minus those of shuffled labels.",
            is_not="It is about a set of rows, and no measure of memorisation.",
            unit="bits",
            direction="neither",
            section="proxies",
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (_SET, _BLOCK, _TARGETS)

    directions: Annotated[int, Gt(0)] = 200
    shuffles: Annotated[int, Gt(0)] = 10
    rows: Annotated[int, Gt(0)] = 1000
    min_rows: Annotated[int, Ge(20)] = 50
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """One reading for each model, set and block."""
        from copy import deepcopy

        import torch

        from fedmem.training.blocks import features_of, hidden_blocks
        from fedmem.training.derivatives import double

        network: nn.Module = deepcopy(context.federation.model).to("cpu", torch.float64).eval()
        readings: list[tuple[Transition, Reading]] = []
        blocks: tuple[str, ...] | None = None
        for transition in transitions:
            params = {name: value.detach().to("cpu", torch.float64) for name, value in transition.kept.items()}
            for labels, examples in self._sets(transition, context):
                inputs = double(examples.inputs)
                blocks = hidden_blocks(network, inputs[:1]) if blocks is None else blocks
                hidden, logits = features_of(network, params, inputs, blocks)
                for block, features in enumerate((inputs.flatten(1), *hidden, logits)):
                    value, error = self._information(features.numpy(), examples.targets, context, block)
                    half = 1.96 * error
                    readings.append(
                        (
                            transition,
                            Reading(
                                metric="sliced_information",
                                value=value,
                                low=value - half,
                                high=value + half,
                                n=len(examples),
                                labels=labels.plus(block=block),
                            ),
                        )
                    )
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means over models of each round and level, set and block; those of the last round are the summary."""
        groups: dict[tuple[int, Level, Labels], list[Measurement]] = {}
        for measurement in measurements:
            key = measurement.round_number, measurement.level, measurement.reading.labels
            groups.setdefault(key, []).append(measurement)
        last: dict[tuple[Level, Labels], Measurement] = {}
        means = []
        for (_, level, labels), rows in groups.items():
            reading = replace(mean_over_runs(rows, "sliced_information", ""), labels=labels)
            means.append(replace(rows[0], run=None, client=NO_CLIENT, reading=reading))
            last[level, labels] = replace(means[-1], round=None)
        return [*means, *last.values()]

    def _sets(self, transition: Transition, context: Context) -> Iterator[tuple[Labels, Examples]]:
        """The sets of rows that a model is read on, each with the labels of its readings."""
        federation = context.federation
        audit, client = federation.audit, transition.client
        base = np.concatenate(list(federation.base)) if client < 0 else federation.base[client]
        if len(base) > self.rows:
            rng = context.stream("sliced rows", run=transition.run, client=None if client < 0 else client)
            base = base[np.sort(rng.permutation(len(base))[: self.rows])]
        sets = [(Labels.of(set="base"), federation.store.take(base))]
        held = np.ones(len(audit), dtype=bool) if client < 0 else audit.holds([client])[0]
        true = None if federation.sources is None else federation.sources.target
        for kind in audit.kinds:
            for coin in ("", "out"):
                is_read = (audit.kind == kind) & held & (audit.is_in[transition.run] != bool(coin))
                chosen = np.flatnonzero(is_read)[: self.rows]
                examples, labels = audit.examples.take(chosen), Labels.of(set=kind, coin=coin)
                sets.append((labels, examples))
                if true is not None and (true[chosen] >= 0).all() and (true[chosen] != examples.targets).any():
                    sets.append((labels.plus(targets="true"), replace(examples, targets=true[chosen])))
        for labels, examples in sets:
            if len(examples) >= self.min_rows and len(np.unique(examples.targets)) > 1:
                yield labels, examples

    def _information(
        self, features: FloatArray, targets: IntArray, context: Context, block: int
    ) -> tuple[float, float]:
        """The sliced information of one block, and its standard error."""
        return sliced_information(features, targets, self.directions, self.shuffles, context.stream(f"sliced {block}"))


def sliced_information(
    features: FloatArray, targets: IntArray, directions: int, shuffles: int, rng: np.random.Generator
) -> tuple[float, float]:
    """The sliced mutual information in bits, minus its mean over shuffled labels, and its standard error over rows.

    Args:
        features: (n, w).
        targets: (n,) labels.
        directions: Random directions.
        shuffles: Random orders of the labels.
        rng: Where directions and orders come from.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(400) % 2
        >>> round(sliced_information(np.where(y, 5.0, -5.0)[:, None] + rng.random((400, 1)), y, 4, 4, rng)[0], 1)
        1.0
    """
    n = len(features)
    if not np.isfinite(features).all():
        return math.nan, math.nan  # a model that has diverged
    phi = rng.standard_normal((features.shape[1], directions))
    slices = (features - features.mean(0)) @ (phi / np.linalg.norm(phi, axis=0))
    # equal values, such as zeros of ReLU, come in an order that has nothing to do with labels
    slices = slices + 1e-10 * (slices.std(axis=0) + 1e-300) * rng.standard_normal(slices.shape)
    quantile = slices.argsort(axis=0).argsort(axis=0) * min(QUANTILES, n) // n
    labels = np.unique(targets, return_inverse=True)[1]
    pointwise = _pointwise(quantile, labels)
    biases = [_pointwise(quantile, rng.permutation(labels)).mean() for _ in range(shuffles)]
    of_row = pointwise.mean(axis=1)
    return float(of_row.mean() - np.mean(biases)), float(of_row.std(ddof=1) / math.sqrt(n))


def _pointwise(quantile: IntArray, labels: IntArray) -> FloatArray:
    """(n, D) log2 p(t, y) / (p(t) p(y)) of each row in each direction, from tables of quantiles and labels."""
    (n, directions), classes = quantile.shape, int(labels.max()) + 1
    cell = (np.arange(directions) * QUANTILES + quantile) * classes + labels[:, None]
    table = np.bincount(cell.ravel(), minlength=directions * QUANTILES * classes).astype(np.float64)
    of_quantile = table.reshape(-1, classes).sum(1)
    of_label = np.bincount(labels, minlength=classes)
    expected = of_quantile[cell // classes] * of_label[labels][:, None] / n
    return np.asarray(np.log2(table[cell] / expected))
