"""TracIn over local steps: the first-order effect of the steps of a round that used an example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.client import ScheduledClient
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, Labels, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.contracts.replay import Replay
from fedmem.probes._clusters import mean_over_runs
from fedmem.probes._participations import draw_examples, trained_rows


@dataclass(frozen=True, kw_only=True)
class StepwiseTracIn:
    """Self-influence of an example in one round by TracIn with the real batches and the model of each local step.

    - Local, of client k in round r: Σ_s (η_s / B_s) c_s ⟨∇ℓ(θ_{k,r,s}), ∇ℓ(θ_{r−1})⟩. Step s has the rate η_s and a
      batch of B_s rows, c_s of which are copies of the example. Before the step the client's model is θ_{k,r,s}, and
      the round begins with θ_{r−1}.
    - Global: the sum over clients that trained on the example, times their weights p_k in the mean of the cohort.

    To first order it is the fall of the example's loss by the steps that used it, in nats. It is the influence of its
    *presence*. The signal `tracin` has θ_{r−1} in the place of each step's model, and 1/n_k in the place of c_s/B_s.
    So it differs where steps are long, and where the last batch of an epoch is smaller. `stepwise_tracin` and
    `participation_loss` of `leave_one_out` agree as rates become small, whatever the batches.

    Models of steps are repeated trainings that end early (`Context.replays`). Momentum, clipping, a proximal term,
    noise and a server step other than the mean are not in the formula. Gradients are those in evaluation mode, without
    weight decay. An example has no reading where its client did not train on it. It is NaN where a model has diverged.

    `summarise` has means by kind for each round and level, and over all observed rounds as the summary. Intervals
    (95 %) are Student's over runs, NaN with a single run.

    Fields

    - `max_examples`: examples of each client and round, at most, drawn from a named stream. Null takes all.
    - `rounds`: which observed rounds to look at; if left out, all after round 0.
    - `every`: look only at rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to look: `local`, `global` or both.

    Cost: for each example and epoch about half a local training, since training is repeated up to each step that uses
    an example. `fedmem check` counts one training for each example.

    >>> StepwiseTracIn().replays_per_client(30)
    10

    Reference: Pruthi, Liu, Kale and Sundararajan (2020), Estimating training data influence by tracing gradient
    descent.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="stepwise_tracin",
            title="TracIn over local steps",
            means="First-order fall of the loss on an example by the steps of one round that used it.",
            is_not="It is an approximation of the effect of one participation, and not memorisation over training.",
            unit="nats",
            null=0.0,
            direction="neither",
            digits=4,
            order=7,
        ),
    )
    reads_gradients: ClassVar[bool] = True

    max_examples: Annotated[int, Gt(0)] | None = 10
    rounds: tuple[Annotated[int, Gt(0)], ...] = ()
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def replays_per_client(self, examples: int) -> int:
        """One for each example, as far as `max_examples` goes."""
        return examples if self.max_examples is None else min(examples, self.max_examples)

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """One reading of each example of each client of the round."""
        first = transitions[0]
        if first.round == 0 or first.level == "sum" or (self.rounds and first.round not in self.rounds):
            return []
        return [(transition, reading) for transition in transitions for reading in self._readings(transition, context)]

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means by kind of each round and level, then over all rounds, as the summary."""
        groups: dict[tuple[int | None, Level, str], list[Measurement]] = {}
        for whole in (False, True):
            for each in measurements:
                place = None if whole else each.round_number
                groups.setdefault((place, each.level, each.reading.labels.text("kind")), []).append(each)
        return [
            replace(
                rows[0],
                run=None,
                client=NO_CLIENT,
                round=place,
                reading=mean_over_runs(rows, rows[0].reading.metric, kind),
            )
            for (place, _, kind), rows in groups.items()
        ]

    def _readings(self, transition: Transition, context: Context) -> Iterator[Reading]:
        is_local = transition.level == "local"
        senders = [transition] if is_local else context.senders(transition)
        sizes = np.array([sender.num_examples for sender in senders], dtype=np.float64)
        shares = sizes / max(sizes.sum(), 1.0) if context.weighting == "size" else np.full(len(sizes), 1 / len(sizes))
        for sender, share in zip(senders, shares.tolist(), strict=True):
            # an aggregate that its owner completes is read for this owner alone
            if not is_local and transition.client not in (NO_CLIENT, sender.client):
                continue
            for subject, value in self._influences(sender, context).items():
                kind = str(context.federation.audit.kind[subject])
                yield Reading(
                    metric="stepwise_tracin",
                    value=value if is_local else share * value,
                    n=int(np.isfinite(value)),
                    subject=str(subject),
                    labels=Labels.of(owner=sender.client, kind=kind),
                )

    def _influences(self, sender: Transition, context: Context) -> dict[int, float]:
        """Example -> its self-influence in the round of a client."""
        from fedmem.training.derivatives import double
        from fedmem.training.gauss_newton import FlatModel

        federation = context.federation
        rows_of = trained_rows(federation, sender.run, sender.client, sender.round)
        subjects = draw_examples(context, sender, rows_of, self.max_examples, "stepwise tracin")
        if not subjects:
            return {}
        weights = _step_weights(context, sender, [rows_of[subject] for subject in subjects])
        steps = np.flatnonzero(weights.any(axis=0)).tolist()
        network = deepcopy(federation.model).double().eval()
        examples = federation.audit.examples.take(np.array(subjects))

        def gradients(model: Params) -> FloatArray:
            import torch

            inputs, targets = double(examples.inputs), torch.from_numpy(examples.targets)
            return np.asarray(FlatModel(network, model).gradients(inputs, targets).numpy())

        start = gradients(sender.before)
        later = [step for step in steps if step]
        outcomes = context.replays([(sender, Replay(steps=step)) for step in later])
        totals = np.zeros(len(subjects))
        for step in steps:
            along = gradients(next(outcomes).kept) if step else start
            is_used = weights[:, step] > 0
            totals[is_used] += weights[is_used, step] * (along * start).sum(axis=1)[is_used]
        return dict(zip(subjects, totals.tolist(), strict=True))


def _step_weights(context: Context, sender: Transition, rows: Sequence[Sequence[int]]) -> FloatArray:
    """(n, S) η_s c_s / B_s: how much each example, as rows of the store, counts in each step of a client."""
    assert isinstance(context.client, ScheduledClient)
    batches, _ = context.batches_and_payload(sender)
    rates = context.client.schedule(sender.round, len(batches)).learning_rates
    sizes: IntArray = (batches >= 0).sum(axis=1)
    counts = np.stack([np.isin(batches, some).sum(axis=1) for some in rows])
    return np.asarray(rates * counts / np.maximum(sizes, 1))
