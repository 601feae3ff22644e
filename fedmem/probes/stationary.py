"""Reconstruction at a stationary point: the gradient of the one unknown row is minus that of all other rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.attack import GradientTarget, ReconstructionAttack
from fedmem.contracts.client import ScheduledClient
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.contracts.validation_of_measures import reconstruct
from fedmem.modalities.numbers import CAP, psnr
from fedmem.probes._leakage_summary import summed_up
from fedmem.probes._measures import OUT
from fedmem.probes._shadows import is_nearest
from fedmem.probes._stationarity import Objective
from fedmem.probes._unknown_rows import (
    UnknownRow,
    candidate_rows,
    draw_senders,
    draw_unknown_rows,
)

_IS_NOT = (
    "The adversary knows every other row of the federation. Where the residual is not small, a failure says that the "
    "model is at no optimum. It does not say that the model reveals nothing."
)

MEASURES = (
    Measure(
        name="stationary_identified",
        title="identified from a stationary model",
        means="Share of examples to which the reconstruction is strictly nearer than to all other candidates.",
        is_not=_IS_NOT,
        unit="yes or no",
        range=(0.0, 1.0),
        digits=2,
        section="reconstruction",
        order=12,
        difference="identified from a stationary model, in − out",
    ),
    Measure(
        name="stationary_gain",
        title="gain of a stationary model over the baseline guess",
        means="PSNR of the reconstruction minus that of the best guess without the model. A guess is the mean of other "
        "rows with the label, or the nearest of them.",
        is_not=f"{_IS_NOT} The best guess is picked with knowledge of the truth.",
        unit="dB",
        range=(-2 * CAP, CAP),
        digits=2,
        section="reconstruction",
        order=12,
        difference="gain of a stationary model, in − out, dB",
    ),
    Measure(
        name="stationary_residual",
        title="distance from a stationary point",
        means="Norm of the gradient of the objective, divided by that of the unknown row's part of it.",
        is_not="It is no leakage: it says whether the attack can work, and only somebody who knows the row has it.",
        range=(0.0, math.inf),
        direction="neither",
        section="reconstruction",
        order=12,
        terms=(
            ("stationary point", "a model at which the gradient of the training objective is zero"),
            ("residual", "distance from a stationary point: below 1, the unknown row's part is larger than the rest"),
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Stationary:
    """Reconstructs one row from a model at a stationary point, knowing all other rows (Balle et al., 2022).

    The objective is sum_i w_i l_i(theta) + weight_decay / 2 |theta|². At the owning client, w_i = 1/n over its n rows.
    At level `global` it is over the rows of all clients of the federation, with the weights by which clients count.
    Where the gradient of the objective is zero, the gradient of the unknown row is

    grad l = −(sum over all other rows of w_i grad l_i + weight_decay theta) / w.

    An attack on the gradient of one example then gives the row. If the first layer is linear with a bias, the attack
    `linear_layer` is exact: x = g_W / g_b. This holds for logistic regression, and for any network at a stationary
    point.

    A federated model is rarely at one. At a client it is after many steps on all rows, with weight decay. The aggregate
    of clients with several steps is no stationary point of the sum. Elsewhere the gradient found is that of the row
    minus that of the objective divided by w. `stationary_residual` is the length of the second by that of the first.
    Where it is not small, the attack can fail. Readings of each example:

    - `stationary_identified`: 1 where the reconstruction is strictly nearer to the example than to each of the other
      `candidates`, chosen as in `informed`. If the example is exchangeable with them, chance is 1 / candidates;
    - `stationary_gain`: PSNR of the reconstruction minus that of the best guess without the model, in dB. The guesses
      are the mean of other clients' rows with the label and the nearest of them, picked by the truth;
    - `stationary_residual`: see above. It has no direction, and no unit.

    Controls are out examples (label `coin` = `out`): a replacement row is at their places, and the same attack is
    scored for the example. The difference between in and out (`.difference`) has mean 0 without leakage.

    The adversary knows every other row, the objective and the model, and neither batches, labels nor initial weights.
    It does not know whether the model is stationary.

    `summarise` has means by kind, over controls, and differences, with the intervals of `informed`. A tie identifies
    nothing. A model that is not finite gives NaN, which does not count.

    Fields

    - `attack`: how a row is reconstructed from its gradient, such as `linear_layer`. It is granted the gradient alone.
    - `candidates`: number of candidates, the true row among them; fewer where there are no more.
    - `clients`: clients attacked in each round and run, at most, of those that hold audit examples.
    - `max_examples`: examples attacked at each of these clients, at most, in or out.
    - `runs`: how many runs are attacked, from run 0 on.
    - `rounds`: which observed rounds to attack; if left out, all after round 0.
    - `every`: attack only rounds that this divides; if left out, all observed ones.
    - `levels`: where to attack.

    Guarantees: nothing is changed; deterministic; the readings of a run do not depend on other runs. Cost: two
    gradients over the rows of the client, or of the federation, for each example.

    Refused for texts, without audit examples, without replacement rows (`exclusion: remove`), and where an example is
    in in every run.

    >>> from fedmem.attacks.linear_layer import LinearLayer
    >>> Stationary(attack=LinearLayer()).levels
    ('local', 'global')

    Reference: Balle, Cherubin and Hayes (2022), Reconstructing Training Data with Informed Adversaries.
    """

    measures: ClassVar[tuple[Measure, ...]] = MEASURES
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label("candidates", "whole", "how many rows the adversary chooses from, the true one among them"),
    )
    compares_held_out: ClassVar[bool] = True
    needs_replacements: ClassVar[bool] = True
    reads_numbers: ClassVar[bool] = True
    reads_gradients: ClassVar[bool] = True

    attack: ReconstructionAttack
    candidates: Annotated[int, Ge(2)] = 10
    clients: Annotated[int, Gt(0)] = 2
    max_examples: Annotated[int, Gt(0)] = 4
    runs: Annotated[int, Gt(0)] = 8
    rounds: tuple[Annotated[int, Gt(0)], ...] = ()
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Three readings of each attacked example."""
        first = transitions[0]
        due = not self.rounds or first.round in self.rounds
        if first.round == 0 or first.level == "sum" or first.level not in self.levels or not due:
            return []
        seen = [transition for transition in transitions if transition.run < self.runs]
        return [
            (transition, reading)
            for transition in seen
            for sender in draw_senders(transition, seen, self.clients, context)
            for unknown in draw_unknown_rows(sender, self.max_examples, context)
            for reading in self._attack(transition, sender, unknown, context)
        ]

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means by kind, over examples and over controls, and their differences."""
        return summed_up(measurements, self.measures)

    def _attack(
        self, transition: Transition, sender: Transition, unknown: UnknownRow, context: Context
    ) -> Iterator[Reading]:
        federation = context.federation
        rng = context.stream(
            f"stationary {unknown.subject}", run=sender.run, round_number=sender.round, client=sender.client
        )
        candidates, others = candidate_rows(sender, unknown, self.candidates, context, rng)
        rows, objective = _objective(transition, sender, context)
        places = np.isin(rows, unknown.rows)
        model = transition.kept
        gradient = objective.missing_gradient(model, places)
        residual = objective.residual(model, places)
        values = {"stationary_identified": math.nan, "stationary_gain": math.nan, "stationary_residual": residual}
        if all(bool(value.isfinite().all()) for value in gradient.values()):
            target = GradientTarget(
                model=federation.model,
                params=model,
                gradient=gradient,
                num_images=1,
                input_shape=federation.store.inputs.shape[1:],
                num_classes=federation.num_classes,
                knows="all other rows",
                modality=federation.modality,
                target_shape=federation.store.targets.shape[1:],
            )
            (found,) = reconstruct(self.attack, [target.grant(())], [rng])
            errors_of, inputs = federation.modality.errors, federation.store.inputs
            errors = errors_of(found.inputs[:1], inputs[candidates])[0]
            values["stationary_identified"] = is_nearest(errors, 0)
            if len(others):
                mean = inputs[others].mean(axis=0, dtype=np.float64).astype(np.float32)
                known = np.concatenate([mean[None], inputs[others]])
                prior = errors_of(known, inputs[candidates[:1]]).min()
                values["stationary_gain"] = float(psnr(errors[0]) - psnr(prior))
        about = Labels.of(
            owner=sender.client, kind=str(federation.audit.kind[unknown.subject]), coin=None if unknown.is_in else OUT
        )
        for metric, value in values.items():
            labels = about.plus(candidates=len(candidates)) if metric == "stationary_identified" else about
            known_count = int(not math.isnan(value))
            yield Reading(metric=metric, value=value, n=known_count, subject=str(unknown.subject), labels=labels)


def _objective(transition: Transition, sender: Transition, context: Context) -> tuple[IntArray, Objective]:
    """The rows behind a model (n,), and its objective: that of the client, or of all clients of the federation."""
    federation, run, round_number = context.federation, sender.run, sender.round
    is_local = transition.level == "local"
    clients = [sender.client] if is_local else list(range(federation.num_clients))
    parts = [context.rows(run, client, round_number) for client in clients]
    sizes = np.array([max(len(part), 1) for part in parts], dtype=np.float64)
    shares = sizes if context.weighting == "size" else np.ones(len(parts))
    weights = np.repeat(shares / shares.sum() / sizes, [len(part) for part in parts])
    assert isinstance(context.client, ScheduledClient)
    decay = context.client.schedule(round_number, 1).weight_decay
    rows = np.concatenate(parts)
    store = federation.store
    return rows, Objective(
        network=federation.model,
        inputs=store.inputs[rows],
        targets=store.targets[rows],
        weights=weights,
        weight_decay=decay,
    )
