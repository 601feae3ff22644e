"""An informed adversary: it knows all rows but one, and guesses this row from a client's message or the aggregate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.client import PrivateAlgorithm
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.contracts.replay import Replay
from fedmem.modalities.numbers import CAP, psnr
from fedmem.privacy.reconstruction_bound import gaussian_success
from fedmem.probes._leakage_summary import summed_up
from fedmem.probes._measures import OUT
from fedmem.probes._shadows import Reconstructor, distances, flat, is_nearest
from fedmem.probes._unknown_rows import (
    UnknownRow,
    candidate_rows,
    draw_senders,
    draw_unknown_rows,
)

_IS_NOT = (
    "The adversary knows every other row of the federation. So a high value says that a row leaves a trace, and not "
    "that a real attacker finds it."
)
_SHARE = {"unit": "yes or no", "range": (0.0, 1.0), "digits": 2, "section": "reconstruction", "order": 11}

MEASURES = (
    Measure(
        name="informed_identified",
        title="identified by an informed adversary",
        means="Share of examples whose shadow models are strictly nearer to the real model than those of all other "
        "candidates.",
        is_not=_IS_NOT,
        difference="identified by an informed adversary, in − out",
        terms=(
            ("informed adversary", "one that knows all rows but one, the client algorithm and the model that was sent"),
            ("shadow model", "a model that the adversary trains with a candidate in the place of the unknown row"),
        ),
        **_SHARE,  # type: ignore[arg-type]
    ),
    Measure(
        name="informed_reconstructed",
        title="reconstructed by an informed adversary",
        means="Share of examples to which the reconstruction is strictly nearer than to all other candidates.",
        is_not=_IS_NOT,
        difference="reconstructed by an informed adversary, in − out",
        **_SHARE,  # type: ignore[arg-type]
    ),
    Measure(
        name="informed_gain",
        title="gain of an informed adversary over the baseline guess",
        means="PSNR of the reconstruction minus that of the best guess without the model: the mean of the shadow rows, "
        "or the nearest of them.",
        is_not=f"{_IS_NOT} The best guess is picked with knowledge of the truth.",
        unit="dB",
        range=(-CAP, CAP),
        digits=2,
        section="reconstruction",
        order=11,
        difference="gain of an informed adversary, in − out, dB",
    ),
)

_BATCHES = Label("batches", "text", "whether the adversary knows the batches of the client")

FEWEST = 8
"""Shadow rows without which there is no reconstruction."""


@dataclass(frozen=True, kw_only=True)
class Informed:
    """Guesses one row of a client from its message or the aggregate, knowing all other rows (Balle et al., 2022).

    The adversary knows every row of the federation but one, and the label of that row. It knows the client algorithm,
    the model that the round begins with, and the batches. It trains shadow models: the client's local training is
    repeated with another row in the place of the unknown one (`Context.replays`). At level `global` it knows what all
    other clients send as well, and repeats the aggregation. It does not know the draws of noise, dropout and defences.
    Shadow models have draws of their own. The row is guessed in two ways:

    - `informed_identified`: 1 where the mean of the shadow models of the true row is strictly nearer to the real model
      than those of the other `candidates`. Without noise and with known batches, this is 1 by construction: the
      adversary repeats the training itself. `informed_identified.null` is chance, 1 / candidates;
    - `informed_reconstructed`: a ridge regression of rows on shadow models predicts the row. 1 where the prediction is
      strictly nearer to the true row than to every other candidate;
    - `informed_gain`: PSNR of the prediction minus that of the best guess without the model, in dB. The guesses are the
      mean of the shadow rows and the nearest of them, picked by the truth. So 0 is hard to reach.

    Candidates and shadow rows differ from each other. The candidates of a `typical` example are rows of other clients
    with its label. Those of another kind are the examples of that kind at other clients. Shadow rows are rows of other
    clients with the label of the example. Scales and penalty of the regression are those of the shadow models alone.

    Controls are out examples (label `coin` = `out`). There the model was trained on a replacement row, which is no
    candidate, and the same guess is scored for the example. If the example is exchangeable with the other candidates,
    chance is 1 / candidates at most. The difference between in and out (`.difference`) has mean 0 without leakage.

    `informed_identified.bound` is the largest share under `dp_sgd`. The noise of each step has the standard deviation
    zS, and one row of norm at most S is in c_t places of batch t. So mu² = sum_t (c_t / z)², and the bound is
    Φ(Φ⁻¹(1 / candidates) + mu). The sum is over the steps of this round and of earlier ones in which the example was
    active. There, all of its copies count as if they were in each batch. For the model that a later round begins with
    shows the row already. Given that model, candidates are not equally probable. The bound needs an example that is
    exchangeable with the other candidates before training. It is for known batches, so that there is no amplification
    by sampling. There is none for an example of several clients, and none in a later phase.

    `summarise` has means by kind, the means over controls and the differences, for each round and over all of them.
    Intervals (95 %) are over owners and runs. Shares have Wilson's interval and their differences Newcombe's, with as
    many trials as there are clusters of the scarcer sort.

    A tie identifies nothing. A real model that is not finite gives NaN, which does not count. There is no value without
    another candidate, and no reconstruction with fewer than eight shadow rows.

    Fields

    - `candidates`: number of candidates, the true row among them; fewer where there are no more.
    - `shadows`: shadow rows of the reconstruction; 0 for none.
    - `repeats`: shadow models of each candidate, whose mean is compared. More are better where there is noise.
    - `batches`: `known`, or `shuffled`. If shuffled, the adversary does not know which row is at which place of a
      batch. Each shadow model has the rows in another order.
    - `clients`: clients attacked in each round and run, at most, of those that hold audit examples.
    - `max_examples`: examples attacked at each of these clients, at most, in or out.
    - `runs`: how many runs are attacked, from run 0 on.
    - `rounds`: which observed rounds to attack; if left out, all after round 0.
    - `every`: attack only rounds that this divides; if left out, all observed ones.
    - `levels`: where to attack.

    Guarantees: nothing is changed; the choice of examples does not depend on coins; the readings of a run do not depend
    on other runs. Cost: `candidates` times `repeats` plus `shadows` local trainings for each example.

    Refused for texts, without audit examples, without replacement rows (`exclusion: remove`), and where an example is
    in in every run. At level `global` also under a strategy that adds noise.

    >>> Informed(candidates=4, shadows=10, max_examples=1).replays_per_client(3)
    14

    References: Balle, Cherubin and Hayes (2022), Reconstructing Training Data with Informed Adversaries. Hayes,
    Mahloujifar and Balle (2023), Bounding Training Data Reconstruction in DP-SGD.
    """

    measures: ClassVar[tuple[Measure, ...]] = MEASURES
    row_labels: ClassVar[tuple[Label, ...]] = (
        _BATCHES,
        Label("candidates", "whole", "how many rows the adversary chooses from, the true one among them"),
    )
    compares_held_out: ClassVar[bool] = True
    needs_replacements: ClassVar[bool] = True
    reads_numbers: ClassVar[bool] = True

    candidates: Annotated[int, Ge(2)] = 10
    shadows: Annotated[int, Ge(0)] = 64
    repeats: Annotated[int, Gt(0)] = 1
    batches: Literal["known", "shuffled"] = "known"
    clients: Annotated[int, Gt(0)] = 2
    max_examples: Annotated[int, Gt(0)] = 4
    runs: Annotated[int, Gt(0)] = 8
    rounds: tuple[Annotated[int, Gt(0)], ...] = ()
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    @property
    def recomputes_aggregates(self) -> bool:
        """Whether it looks at the aggregate."""
        return "global" in self.levels

    @property
    def draws_noise_again(self) -> bool:
        """Whether it looks at the aggregate, whose noise it does not know."""
        return "global" in self.levels

    def replays_per_client(self, examples: int) -> int:
        """At most so many; examples that are out are attacked too."""
        return self.max_examples * (self.candidates * self.repeats + self.shadows)

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Three readings of each attacked example, and chance and the bound beside the first."""
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
        rows = summed_up(measurements, self.measures)
        return [row for row in (_without_interval(row) for row in rows) if row is not None]

    def _attack(
        self, transition: Transition, sender: Transition, unknown: UnknownRow, context: Context
    ) -> Iterator[Reading]:
        federation = context.federation
        rng = context.stream(
            f"informed {unknown.subject}", run=sender.run, round_number=sender.round, client=sender.client
        )
        candidates, shadow_rows = self._rows(sender, unknown, context, rng)
        if len(candidates) < 2:
            return
        changes = [
            self._change(sender, unknown, row, draws, context, rng)
            for draws, row in enumerate([*np.repeat(candidates, self.repeats).tolist(), *shadow_rows.tolist()], 1)
        ]
        outcomes = context.replays([(sender, change) for change in changes])
        if transition.level == "local":
            models = np.stack([flat(outcome.sent) for outcome in outcomes])
        else:
            aggregates = context.aggregates(transition, [{sender.client: outcome} for outcome in outcomes])
            models = np.stack([flat(params) for params in aggregates])
        count = len(candidates) * self.repeats
        real = flat(transition.sent)
        labels = Labels.of(
            owner=sender.client,
            kind=str(federation.audit.kind[unknown.subject]),
            coin=None if unknown.is_in else OUT,
            batches=None if self.batches == "known" else self.batches,
        )
        number = labels.plus(candidates=len(candidates))
        shadows = models[:count].reshape(len(candidates), self.repeats, -1)
        values = {
            "informed_identified": is_nearest(distances(real, shadows), 0),
            "informed_identified.null": 1 / len(candidates),
        }
        mu = _mu(context, sender, unknown)
        if unknown.is_in and mu is not None:
            values["informed_identified.bound"] = gaussian_success(1 / len(candidates), mu)
        values |= _reconstruction_readings(federation, real, models[count:], candidates, shadow_rows)
        for metric, value in values.items():
            known = int(not math.isnan(value))
            about = labels if metric == "informed_gain" else number
            yield Reading(metric=metric, value=value, n=known, subject=str(unknown.subject), labels=about)

    def _rows(
        self, sender: Transition, unknown: UnknownRow, context: Context, rng: np.random.Generator
    ) -> tuple[IntArray, IntArray]:
        """The candidates, the true row first, and the shadow rows, none of which is a candidate."""
        candidates, others = candidate_rows(sender, unknown, self.candidates, context, rng)
        shadow_rows = others[: self.shadows]
        return candidates, shadow_rows if len(shadow_rows) >= FEWEST else shadow_rows[:0]

    def _change(
        self, sender: Transition, unknown: UnknownRow, row: int, draws: int, context: Context, rng: np.random.Generator
    ) -> Replay:
        """The client's training with a row in the place of the unknown one, and with draws of its own."""
        if self.batches == "known":
            return Replay(extra=dict.fromkeys(unknown.rows, row), draws=draws)
        rows = context.rows(sender.run, sender.client, sender.round)
        moved: Mapping[int, int] = dict(zip(rows.tolist(), rng.permutation(rows).tolist(), strict=True))
        return Replay(extra={old: row if new in unknown.rows else new for old, new in moved.items()}, draws=draws)


def _reconstruction_readings(
    federation: Federation, real: FloatArray, models: FloatArray, candidates: IntArray, shadow_rows: IntArray
) -> dict[str, float]:
    """The readings of the reconstruction; none without shadow rows."""
    if not len(shadow_rows):
        return {}
    inputs: Any = federation.store.inputs
    fitted = Reconstructor.fit(models, inputs[shadow_rows])
    if fitted is None or not np.isfinite(real).all():
        return {"informed_reconstructed": math.nan, "informed_gain": math.nan}
    errors_of, shape = federation.modality.errors, inputs.shape[1:]
    guess = fitted.predict(real).reshape(1, *shape)
    errors = errors_of(guess, inputs[candidates])[0]
    known = np.concatenate([fitted.mean.reshape(1, *shape), inputs[shadow_rows]])
    prior = errors_of(known, inputs[candidates[:1]]).min()
    return {
        "informed_reconstructed": is_nearest(errors, 0),
        "informed_gain": float(psnr(errors[0]) - psnr(prior)),
    }


def _mu(context: Context, sender: Transition, unknown: UnknownRow) -> float | None:
    """How far the row may have moved all noisy sums so far, in standard deviations; None where that is not known.

    The model that the round begins with is one of the outputs, since earlier rounds may have trained on the row.
    """
    federation, audit = context.federation, context.federation.audit
    owners = audit.owners[audit.subject == unknown.subject]
    if not isinstance(context.client, PrivateAlgorithm):
        return None
    if federation.before is not None or (owners != sender.client).any():
        return None
    noise = context.client.per_example.noise_multiplier
    batches, _ = context.batches_and_payload(sender)
    counts: IntArray = np.isin(batches, unknown.rows).sum(axis=1)
    squares = float(np.square(counts).sum())
    for earlier in range(1, sender.round):
        if audit.is_active(earlier)[unknown.subject]:
            steps = context.client.num_steps(len(context.rows(sender.run, sender.client, earlier)))
            squares += steps * len(owners) ** 2
    return math.sqrt(squares) / noise if noise > 0 else math.inf


def _without_interval(row: Measurement) -> Measurement | None:
    """Chance and bounds have no interval, and no difference between in and out."""
    metric = row.reading.metric
    if not metric.endswith((".null", ".bound", ".null.difference")):
        return row
    if metric.endswith(".difference") or row.reading.labels.get("coin") == OUT:
        return None
    return replace(row, reading=replace(row.reading, low=math.nan, high=math.nan))
