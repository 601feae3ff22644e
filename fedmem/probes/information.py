"""Where in the network an update says something about an example: proxies, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, Label, Labels, Level, Measurement, Reading
from fedmem.contracts.model import frozen_tensors
from fedmem.contracts.probe import Context
from fedmem.modalities.loss import mean_loss
from fedmem.probes._cases import VIEWS, Case, Scope, is_example_itself
from fedmem.probes._clusters import mean_interval
from fedmem.probes._leak_measures import ATTACK_LABELS, INFORMATION
from fedmem.probes._leakage_summary import WHOSE, summed_up
from fedmem.probes._measures import OUT

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Information:
    """Proxies for the information about single audit examples in the part of an update that belongs to one layer.

    Nothing is reconstructed, so neither number is leakage. The labels are `claim` = `proxy`, the `view` and the `layer`
    (a module that has parameters of its own). As in the probe `leakage`, the update is read as a mean gradient `g` of n
    examples. The examples are also those of `leakage`: victims, which are in and in the batch, and controls, which a
    coin left out. With `g_l` the part of layer l, and `h_l(x)` that of the gradient of the example's own loss at the
    model before:

    - `sensitivity` (victims alone): `|d h_l / d x|_F / (n |g_l|)`, how much the update of the layer moves with the
      input, relative to its length, for one unit of the input; higher is more. The Frobenius norm is estimated from
      random directions, `|J|_F^2 = E |J v|^2` with signs v, without bias in the square. It is exact where the input has
      no more numbers than `directions`;
    - `alignment`: the cosine of `g_l` and `h_l(x)`, -1..1, of victims and of controls (label `coin` = `out`).

    Texts have no `sensitivity`, since a token cannot be moved by a little. For texts an example is a whole row. Its own
    loss is the mean over all tokens that are asked for where it is trained on.

    `summarise` gives means by kind, and for `alignment` the difference between victims and controls, as `leakage` does.
    From the same values it gives

    - `usable_information`: bits that the alignment gives a logistic predictor about the coin. It is 0 where it is of no
      use, and at most 1 for even coins. It is the mean of `log2 f(y | a) - log2 p(y)` over victims and controls, where
      predictor and prior are fitted to all other runs. It may fall below 0 where the fitted predictor misleads. NaN
      with too few runs to fit both. Intervals (95 %) are Student's, clustered by owner and by run.

    Without a gradient in a layer (all zero, or not finite) its readings are NaN, and do not count in any mean.

    Fields

    - `rounds`: which observed rounds to look at; if left out, the first after round 0 and the last.
    - `victims`: clients looked at in each round and run, the same as those of `leakage`.
    - `runs`: how many runs are looked at, from run 0 on.
    - `directions`: random directions behind each sensitivity.
    - `every`: look only at rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to look.

    Guarantees: deterministic; nothing is changed; the readings of a run do not depend on other runs.

    Errors: `ComponentError` if the client algorithm is no `ScheduledClient`.

    >>> Information().levels
    ('local', 'global')

    References: Both follow Mo, Borovykh, Malekzadeh, Haddadi and Demetriou (2021), on localising what gradients leak.
    Xu, Zhao, Song, Stewart and Ermon (2020), on usable information.
    """

    measures: ClassVar[tuple[Measure, ...]] = INFORMATION
    row_labels: ClassVar[tuple[Label, ...]] = (*ATTACK_LABELS, Label("layer", "text", "the module whose part is read"))
    compares_held_out: ClassVar[bool] = True
    reads_gradients: ClassVar[bool] = True

    rounds: tuple[Annotated[int, Gt(0)], ...] = ()
    victims: Annotated[int, Gt(0)] = 2
    runs: Annotated[int, Gt(0)] = 32
    directions: Annotated[int, Gt(0)] = 16
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Two readings of each layer and victim, one of each layer and control."""
        first = transitions[0]
        last = context.observed_rounds[-1]
        due = [r for r in context.observed_rounds if r > 0 and (not self.every or r % self.every == 0 or r == last)]
        if first.round not in (self.rounds or (due[:1] + due[-1:])):
            return []
        scope = Scope(runs=self.runs, victims=self.victims, max_images=1, knows=())
        return [
            (case.transition, reading)
            for case in scope.cases(VIEWS[first.level][0], transitions, context)
            for reading in self._of(case, context)
        ]

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means and differences by kind, and usable information, for each round and in the summary."""
        return [*summed_up(measurements, self.measures), *_usable_information(measurements)]

    def _of(self, case: Case, context: Context) -> list[Reading]:
        """All readings of one update."""
        federation, place = context.federation, case.transition
        audit = federation.audit
        subjects = np.array([*case.victims.tolist(), *case.controls], dtype=np.int64)
        rows = _trained_on(subjects, federation)
        inputs, targets = federation.store.inputs[rows], federation.store.targets[rows]
        rng = context.stream(f"information {case.name}", run=place.run, round_number=place.round, client=place.client)
        # tokens have no directions
        directions = None if federation.modality.token_inputs else self._directions(inputs[0].size, rng)
        gradients, movements = _gradients(federation.model, place.before, inputs, targets, directions)
        readings = []
        for layer, names in _layers(case.target.gradient).items():
            part = _flatten(case.target.gradient, names)
            length = float(np.linalg.norm(part)) or math.nan
            for i, subject in enumerate(subjects.tolist()):
                victim = subject not in case.controls
                about = case.labels.plus(
                    claim="proxy",
                    layer=layer,
                    coin=None if victim else OUT,
                    owner=int(audit.owner[subject]),
                    kind=str(audit.kind[subject]),
                )
                gradient = _flatten({name: gradients[name][i] for name in names}, names)
                values = {
                    "alignment": float(part @ gradient) / (length * (float(np.linalg.norm(gradient)) or math.nan))
                }
                if victim and directions is not None:
                    squares = sum(movements[name][i] for name in names)
                    values["sensitivity"] = float(np.sqrt(squares)) / (len(case.rows) * length)
                readings += [
                    Reading(metric=metric, value=value, subject=str(subject), labels=about)
                    for metric, value in values.items()
                ]
        return readings

    def _directions(self, size: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """(k, size) signs, scaled so that squares add up; all unit vectors where the input has no more numbers."""
        if size <= self.directions:
            return np.eye(size, dtype=np.float32)
        signs = rng.integers(2, size=(self.directions, size)) * 2 - 1
        return (signs / math.sqrt(self.directions)).astype(np.float32)


def _trained_on(subjects: IntArray, federation: Federation) -> IntArray:
    """The first row of the store of each of these examples that is trained on and is the example itself."""
    is_itself, subject = is_example_itself(federation), federation.audit.subject
    return np.array(
        [federation.trained_rows[is_itself & (subject == example)][0] for example in subjects.tolist()], dtype=np.int64
    )


def _gradients(
    model: nn.Module,
    params: Params,
    inputs: NDArray[Any],
    targets: IntArray,
    directions: NDArray[np.float32] | None,
) -> tuple[Params, Mapping[str, FloatArray]]:
    """The gradient of each example's loss by parameter, and the squared length of its change (m,), if any."""
    import torch
    from torch.func import functional_call

    leaves = {name: value.detach().double().requires_grad_() for name, value in params.items()}
    frozen = {name: value.double() for name, value in frozen_tensors(model).items() if value.is_floating_point()}
    gradients, squared_lengths = [], []
    for x, y in zip(torch.from_numpy(inputs), torch.from_numpy(targets), strict=True):
        x = x[None] if directions is None else x[None].double().requires_grad_()
        loss = mean_loss(functional_call(model, frozen | leaves, (x,)), y[None])
        gradient = torch.autograd.grad(loss, list(leaves.values()), create_graph=directions is not None)
        gradients.append([part.detach() for part in gradient])
        if directions is None:
            continue
        # J v is the derivative of v J' u by u, since J' u is linear in u
        weights = [torch.zeros_like(part, requires_grad=True) for part in gradient]
        (back,) = torch.autograd.grad(gradient, x, weights, create_graph=True)
        squares = np.zeros(len(leaves))
        for direction in torch.from_numpy(directions).double():
            moves = torch.autograd.grad(back, weights, direction.reshape(x.shape), retain_graph=True)
            squares += [float(part.square().sum()) for part in moves]
        squared_lengths.append(squares)
    return (
        {name: torch.stack(parts) for name, parts in zip(leaves, zip(*gradients, strict=True), strict=True)},
        dict(zip(leaves, np.array(squared_lengths).T, strict=True)) if squared_lengths else {},
    )


def _layers(params: Params) -> dict[str, list[str]]:
    """The parameters of each module that has some, by its name."""
    layers: dict[str, list[str]] = {}
    for name in params:
        layers.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return layers


def _flatten(params: Params, names: Sequence[str]) -> FloatArray:
    return np.concatenate([params[name].detach().double().numpy().ravel() for name in names])


def _usable_information(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The information of the alignments about the coins, by round, level, layer and kind, and over all rounds."""
    groups: dict[tuple[int | None, Level, Labels, str], list[tuple[float, bool, int, int]]] = {}
    for measurement in measurements:
        if measurement.reading.metric == "alignment" and math.isfinite(measurement.reading.value):
            labels = measurement.reading.labels
            out = labels.get("coin") == OUT
            entry = (measurement.reading.value, not out, labels.integer("owner"), measurement.run_number)
            for round_number in (measurement.round, None):
                key = (round_number, measurement.level, labels.without(*WHOSE, "coin"), labels.text("kind"))
                groups.setdefault(key, []).append(entry)
    summaries = []
    for (round_number, level, labels, kind), rows in groups.items():
        bits, is_defined = pointwise_information(*(np.array(column) for column in zip(*rows, strict=True)))
        low = high = math.nan
        if is_defined.any():
            owners, runs = ([row[i] for row, is_kept in zip(rows, is_defined, strict=True) if is_kept] for i in (2, 3))
            low, high = mean_interval(bits[is_defined], owners, runs)
        value = float(bits[is_defined].mean()) if is_defined.any() else math.nan
        reading = Reading(
            metric="usable_information",
            value=value,
            low=low,
            high=float(np.minimum(high, 1.0)),  # a coin is one bit
            n=int(is_defined.sum()),
            subject=kind,
            labels=labels,
        )
        place = replace(measurements[0], run=None, client=NO_CLIENT, round=round_number, level=level, reading=reading)
        summaries.append(place)
    return summaries


def pointwise_information(
    values: FloatArray, coins: NDArray[np.bool_], owners: IntArray, runs: IntArray
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """(n,) bits that each value gives about its coin by predictor and prior of all other runs, and where there are any.

    The predictor is a logistic regression on the value, standardised in the runs that it is fitted to, with a ridge of
    1/2. Runs whose others have but one sort of coin are left out.
    """
    from sklearn.linear_model import LogisticRegression

    bits, is_defined = np.full(len(values), np.nan), np.zeros(len(values), dtype=bool)
    for run in np.unique(runs):
        inside, others = runs == run, runs != run
        if len(np.unique(coins[others])) < 2:
            continue
        middle, spread = values[others].mean(), values[others].std() or 1.0
        fitted = LogisticRegression().fit(((values[others] - middle) / spread)[:, None], coins[others])
        logs = fitted.predict_log_proba(((values[inside] - middle) / spread)[:, None])
        prior = np.log([1 - coins[others].mean(), coins[others].mean()])
        run_coins = coins[inside].astype(np.int64)
        bits[inside] = (logs[np.arange(len(run_coins)), run_coins] - prior[run_coins]) / math.log(2)
        is_defined |= inside
    return bits, is_defined
