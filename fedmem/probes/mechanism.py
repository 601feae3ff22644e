"""Direct tests of the noise, the clip and the batches that a privacy guarantee counts on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Lt

from fedmem.contracts.arrays import BoolArray, FloatArray, Params
from fedmem.contracts.client import PrivateAlgorithm, ScheduledClient, client_declaration
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, Label, Labels, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.contracts.strategy import strategy_declaration
from fedmem.modalities.loss import example_losses
from fedmem.privacy.canary_directions import flatten
from fedmem.privacy.mechanism_tests import (
    Release,
    batch_statistics,
    mean_squares,
    projections,
)
from fedmem.probes._mechanism_measures import MEASURES, TEST_LABELS
from fedmem.probes._release_tests import (
    SERVER,
    correlation_tests,
    direction_scores,
    is_weight,
    step_labels,
    variance_tests,
)

if TYPE_CHECKING:
    import torch

AT_ONCE = 1 << 22
"""Numbers in the gradients of single records that are held at the same time, 32 MB."""

_STEPS = 2
"""Local steps of a client that are looked at in a round."""


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """Tests of messages: the noise of each release is the release minus the contributions of clients.

    An audit has the view of an adversary, and misses faults that adversaries of this strength cannot use. This probe
    plays a tester that sees everything. With a noisy strategy it sees the clients' updates and the aggregate. With
    `dp_sgd` it sees the rows in the first two batches and the models around them. The tester clips the contributions,
    adds them up and subtracts the sum. Under the stated mechanism the rest is normal noise of standard deviation z S.
    From round 1 on, in each observed round:

    - `noise_variance`, by `array`: the mean square of the noise in units of (z S)^2; 1 is expected. The label `release`
      is `server`, or `step` with the labels `step` 1 and 2 of a client with `dp_sgd`;
    - `noise_along`, with `direction` = `sum` and `excess`: the noise along the sum of clipped contributions, and along
      the part that clipping takes away from it. Both are standard normal, unless contributions are not clipped as
      stated;
    - `noise_in_span`: the mean square of the noise within the span of the contributions, n its dimension;
    - `projection`, with `j` from 0 to 31: sums of the noise with random signs, the same signs in each round;
    - `batches`, with `statistic` = `size`, `spread` and `overlap`, and `projection` of `release` = `batch`: standard
      scores of the batches of `dp_sgd`. These hold each row independently with a fixed probability.

    `summarise` gives one `mechanism_p` for each test, over all rounds and runs, in the summary. The tests are the
    variance of each array, both directions, correlation between `rounds`, `steps`, `clients` and `runs`, and the
    batches. The smallest p times the number of tests is the `mechanism_p` whose label `test` is `all`. With `alarm` a
    value at or below `level` is an alarm of the run.

    Guarantees:

    - variances and directions have exact p-values for the exact mechanism; correlations and batches normal ones;
    - the stated mechanism raises an alarm with a probability of at most about `level`, all tests together;
    - sums are computed again in float64, from gradients of single records by torch's autograd, and by none of the code
      that trains; watching changes nothing.

    Covered are `dp_fedavg`, `dp_ftrl` and `dp_sgd`. `dp_adaptive` does not release the clip of later rounds. There the
    noise level is tested in round 1 alone, and in later rounds the ratio of arrays and correlations. With `dp_ftrl` the
    noise of rounds is correlated by design. There the new draws of each round are compared, from the first round of a
    tree on, as long as every round is observed. With momentum only round 1 is tested. Rounds that are not observed are
    not tested.

    Fields

    - `clients`: clients with `dp_sgd` that are tested in each run and round, the first ones by number.
    - `level`: at which all tests together contradict the guarantee.
    - `alarm`: whether that is an alarm, with which the command ends with 1.
    - `every`: test only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: `local` for the steps of clients, `global` for the noise of the server.

    >>> Mechanism().level
    0.0001

    Reference: Ding et al. (2018), Detecting Violations of Differential Privacy, for tests that look at the mechanism.
    """

    measures: ClassVar[tuple[Measure, ...]] = MEASURES
    counts_groups: ClassVar[bool] = True
    row_labels: ClassVar[tuple[Label, ...]] = TEST_LABELS
    tests_mechanism: ClassVar[bool] = True
    needs_independent_runs: ClassVar[bool] = True

    clients: Annotated[int, Gt(0)] = 2
    level: Annotated[float, Gt(0), Lt(1)] = 1e-4
    alarm: bool = True
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """The readings of each release of the server, or of the first steps of some clients."""
        readings: list[tuple[Transition, Reading]] = []
        num_read: dict[int, int] = {}
        for transition in transitions:
            if transition.round == 0:
                continue
            if transition.level == "global":
                readings += ((transition, reading) for reading in _of_server(transition, context))
            elif isinstance(context.client, PrivateAlgorithm) and transition.num_examples:
                num_read[transition.run] = num_read.get(transition.run, 0) + 1
                if num_read[transition.run] <= self.clients:
                    readings += ((transition, reading) for reading in _of_steps(transition, context))
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """`mechanism_p` of every test, and of all of them, by level."""
        summaries: list[Measurement] = []
        for level in self.levels:
            of_level = [measurement for measurement in measurements if measurement.level == level]
            tests = [*variance_tests(of_level), *direction_scores(of_level), *correlation_tests(of_level)]
            if not tests:
                continue
            last = replace(of_level[-1], run=None, client=NO_CLIENT, round=None)
            whole = Labels.of(test="all", alpha=float(f"{self.level:g}"))
            smallest = min(1.0, len(tests) * min(value for _, value, _ in tests))
            for labels, value, n in (*tests, (whole, smallest, len(tests))):
                reading = Reading(metric="mechanism_p", value=value, n=n, labels=labels)
                summaries.append(replace(last, reading=reading))
        return summaries


# --- what is read -----------------------------------------------------------------------------------------------------


def _of_server(transition: Transition, context: Context) -> Iterator[Reading]:
    """The readings of one release of a noisy strategy; none where it states none."""
    declared = strategy_declaration(context.strategy)
    stated = declared.release_statement(transition.round) if declared.release_statement is not None else None
    if not stated or not stated["noise"]:
        return
    names = sorted(name for name, value in transition.before.items() if is_weight(name, value))
    before, after = ({name: model[name] for name in names} for model in (transition.before, transition.sent))
    senders = context.senders(transition)
    contributions = np.zeros((len(senders), sum(value.numel() for value in before.values())))
    for row, sender in zip(contributions, senders, strict=True):
        row[:] = flatten({name: sender.sent[name] for name in names}) - flatten(before)
    # a client that sends a number that is not finite counts as absent
    sound = np.isfinite(contributions).all(axis=1)
    contributions = contributions[sound]
    cap = declared.cap
    weights = np.array([1.0 if cap is None else min(1.0, sender.num_examples / cap) for sender in senders])[sound]
    total = stated["divisor"] * (flatten(after) - flatten(before))
    arrays = {name: before[name].numel() for name in names}
    clip_known = not math.isnan(stated["clip"])
    release = Release(
        total=total,
        contributions=contributions,
        clip=stated["clip"],
        scale=stated["noise"] * stated["clip"],
        arrays=arrays,
        weights=weights,
        canaries=_canaries(transition, context),
        canary_length=stated["canary_length"],
    )
    if not clip_known:
        release = _with_clip(release, stated["noise"])
    yield from _read_release(release, SERVER, context, known=clip_known)
    for name, value in stated.items():
        if name in ("place", "deviation", "new") or name.startswith("left:"):
            yield Reading(metric="tree", value=value, n=1, labels=SERVER.plus(statistic=name))


def _canaries(transition: Transition, context: Context) -> FloatArray | None:
    """The sum of the directions of those canary clients that came; None where there are none."""
    if context.canaries is None or not strategy_declaration(context.strategy).canary_clients:
        return None
    like = {name: value[None] for name, value in transition.before.items() if is_weight(name, value)}
    sums, _ = context.canaries.sums([transition.run], transition.round, like)
    return flatten({name: value[0] for name, value in sums.items()})


def _with_clip(release: Release, noise: float) -> Release:
    """The release with the clip of a round in which it is not published, from the size of the noise: S = rms / z."""
    clip = float(np.sqrt(np.mean(release.total**2))) / noise
    for _ in range(20):
        clip = float(np.sqrt(np.mean(replace(release, clip=clip, scale=1.0).noise ** 2))) / noise
    return replace(release, clip=clip, scale=noise * clip)


def _of_steps(transition: Transition, context: Context) -> Iterator[Reading]:
    """The readings of the batches of a client, and of its first steps."""
    client = context.client
    assert isinstance(client, PrivateAlgorithm)
    how = client.per_example
    batches, _ = context.batches_and_payload(transition)
    rows = context.rows(transition.run, transition.client, transition.round)
    members = _batch_masks(batches, rows)
    for name, value in batch_statistics(members, client.rate(len(rows))).items():
        yield Reading(metric="batches", value=value, n=len(members), labels=Labels.of(statistic=name))
    rate = client.rate(len(rows))
    if 0 < rate < 1 and len(members):
        centred = (members[0] - rate) / math.sqrt(rate * (1 - rate))
        yield from _projections_of(centred, Labels.of(release="batch"), context)
    if not how.noise_multiplier:
        return
    assert isinstance(client, ScheduledClient)
    rates = client.schedule(transition.round, len(batches)).learning_rates
    momentum, before = client_declaration(client).momentum, transition.before
    velocity: FloatArray | float = 0.0
    for step in range(min(_STEPS, len(batches))):
        after = context.steps(transition, step + 1)
        movement = (flatten(before) - flatten(after)) / rates[step]
        batch_rows = batches[step][batches[step] >= 0]
        release = Release(
            total=how.expected * (movement - momentum * velocity),
            contributions=_gradients(before, batch_rows, context),
            clip=how.clip,
            scale=how.noise_multiplier * how.clip,
            arrays={name: before[name].numel() for name in sorted(before)},
        )
        yield from _read_release(release, step_labels(step + 1), context)
        before, velocity = after, movement


def _gradients(params: Params, rows: np.ndarray, context: Context) -> FloatArray:
    """(B, P) gradients of single records in float64, parameters by name, by torch's autograd."""
    import torch

    model, store = context.federation.model, context.federation.store
    leaves = {name: value.detach().cpu().double() for name, value in params.items()}
    if not len(rows):
        return np.zeros((0, sum(value.numel() for value in leaves.values())))
    inputs = torch.from_numpy(store.inputs[rows])
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    targets = torch.from_numpy(store.targets[rows])

    def loss(parameters: Params, row: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        outputs = torch.func.functional_call(model, parameters, (row[None],))
        return example_losses(outputs, target[None]).sum()

    # fused recurrent kernels cannot be stacked
    alone = any(isinstance(part, torch.nn.RNNBase) for part in model.modules())
    size = 1 if alone else max(1, AT_ONCE // sum(value.numel() for value in leaves.values()))
    single = torch.func.grad(loss)
    blocks = []
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        if alone:
            row_gradients = {name: value[None] for name, value in single(leaves, inputs[start], targets[start]).items()}
        else:
            row_gradients = torch.vmap(single, in_dims=(None, 0, 0))(leaves, inputs[part], targets[part])
        blocks.append(
            np.concatenate([row_gradients[name].flatten(1).numpy() for name in sorted(row_gradients)], axis=1)
        )
    return np.concatenate(blocks)


def _batch_masks(batches: np.ndarray, rows: np.ndarray) -> BoolArray:
    """(S, n) which of a client's rows are in each batch."""
    order = np.argsort(rows)
    members = np.zeros((len(batches), len(rows)), dtype=bool)
    for step, batch in enumerate(batches):
        batch_rows = batch[batch >= 0]
        members[step, order[np.searchsorted(rows, batch_rows, sorter=order)]] = True
    return members


def _read_release(
    release: Release,
    who: Labels,
    context: Context,
    *,
    known: bool = True,
) -> Iterator[Reading]:
    """The readings of one release; where its scale is not `known`, of all arrays but the largest."""
    noise = release.noise
    largest = max(release.arrays, key=lambda name: release.arrays[name])
    for name, value in mean_squares(noise, release.arrays).items():
        if known or name != largest:
            n = release.arrays[name]
            yield Reading(metric="noise_variance", value=value, n=n, labels=who.plus(array=name))
    for name, direction in release.directions.items():
        value = float(noise @ direction)
        yield Reading(metric="noise_along", value=value, n=len(noise), labels=who.plus(direction=name))
    if known:
        inside, dimension = release.in_span(context.stream("span"))
        yield Reading(metric="noise_in_span", value=inside, n=dimension, labels=who)
    yield from _projections_of(noise, who, context)


def _projections_of(values: FloatArray, who: Labels, context: Context) -> Iterator[Reading]:
    for j, value in enumerate(projections(values, context.stream("signs")).tolist()):
        yield Reading(metric="projection", value=value, n=len(values), labels=who.plus(j=j))


# --- what follows -----------------------------------------------------------------------------------------------------
