"""Active membership by gradient ascent: a member's loss, raised by the server, is pulled back by its client."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import Label, Reading
from fedmem.contracts.probe import Context
from fedmem.contracts.replay import Replay
from fedmem.probes._active import ActiveMembership, Question, reading
from fedmem.probes._answers import answers


@dataclass(frozen=True, kw_only=True)
class GradientAscent(ActiveMembership):
    """A server that raises the loss of one example before a client trains, and reads how far it falls again.

    For each audit example j of an attacked client, in or out, the round of the client is replayed from another model.
    That is `theta + radius * grad l_j / |grad l_j|`, where theta is the model that it was sent. The federation trains
    as it does without the probe. The score is `loss_fall` with `statistic` = `ascent`: the loss on j of the model sent
    minus that of the model returned. A client that trains on j pulls its loss back faster than one that does not.
    Beside it

    - `statistic` = `passive` is the same fall in the real round, without any change;
    - `place` = `others` asks another client of the cohort that does not hold j. It does not depend on the coin of this
      round. The model that was sent does, where j took part in earlier rounds: it starts from a lower loss;
    - `statistic` = `ascent_contrast` is the fall at the client minus that at the other one, from the same raised model.
      It removes how hard the example is, and what earlier rounds left of it. `passive_contrast` does so for the real
      round.

    For linear regression with rate eta and E steps on all rows, each eigenvector of the client's Hessian keeps
    `(1 - eta lambda)^E` of the ascent. Here lambda is its eigenvalue. The ascent of a row that is orthogonal to all
    others is undone only where it is in the batch.

    `active_auc` is the probability that an in example scores higher than an out example, with its p from coins that are
    dealt again. Readings of out examples have `coin` = `out`. `summarise` has the means, and in minus out.

    What the server is granted: the example and its label, and a change of the model that is made for this example
    alone. One round asks about one example.

    Fields

    - `radius`: L2 norm of the ascent.
    - `max_examples`: examples of each client and round, at most, drawn alike whether they are in or out.
    - `others`: whether another client is asked as well.
    - `rounds`: which observed rounds to attack; if left out, the first after round 0 and the last.
    - `victims`: clients attacked in each round and run.
    - `runs`: how many runs are attacked, from run 0 on.
    - `every`: attack only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: `local` alone.

    Guarantees: deterministic; nothing is changed; the readings of a run do not depend on other runs. A model that has
    diverged gives NaN, which does not count. Parameters that stay with the client are not raised.

    >>> GradientAscent(max_examples=5).replays_per_client(30)
    10

    Reference: Nasr, Shokri and Houmansadr (2019), Comprehensive Privacy Analysis of Deep Learning, on the active
    attacker.
    """

    row_labels: ClassVar[tuple[Label, ...]] = ()

    radius: Annotated[float, Gt(0)] = 1.0

    def _answers(self, questions: Sequence[Question], context: Context) -> list[tuple[Transition, Reading]]:
        starts = self._raise_losses(questions, context)
        asked = [(question.sender, Replay(start=start)) for question, start in zip(questions, starts, strict=True)]
        after = [outcome.sent for outcome in context.replays(asked)]
        readings, falls = [], dict[tuple[int, int, str], dict[str, float]]()
        for question, start, model in zip(questions, starts, after, strict=True):
            sender = question.sender
            losses = _losses([start, model, sender.before, sender.sent], question.subject, context).tolist()
            values = {"ascent": losses[0] - losses[1], "passive": losses[2] - losses[3]}
            falls[sender.run, question.subject, question.place] = values
            for statistic, value in values.items():
                readings.append((sender, reading(question, "loss_fall", value, context, statistic=statistic)))
        for question in questions:
            run, subject = question.sender.run, question.subject
            if question.place == "owner" and (run, subject, "others") in falls:
                own, other = (falls[run, subject, place] for place in ("owner", "others"))
                for statistic in own:
                    value, name = own[statistic] - other[statistic], f"{statistic}_contrast"
                    readings.append((question.sender, reading(question, "loss_fall", value, context, statistic=name)))
        return readings

    def _raise_losses(self, questions: Sequence[Question], context: Context) -> list[Params]:
        """The model that is sent for each question."""
        import torch

        from fedmem.training.derivatives import double
        from fedmem.training.gauss_newton import FlatModel

        federation = context.federation
        network = deepcopy(federation.model).double().eval()
        personal = set(federation.personal_names(context.client))
        examples = federation.audit.examples
        starts = []
        for question in questions:
            before = question.sender.before
            flat = FlatModel(network, before)
            chosen = [question.subject]
            slope = flat.gradients(double(examples.inputs[chosen]), torch.from_numpy(examples.targets[chosen]))[0]
            parts = {name: part for name, part in flat.split(slope).items() if name not in personal}
            length = float(sum(part.square().sum() for part in parts.values())) ** 0.5
            step = self.radius / length if length > 0 else 0.0
            raised = {name: (before[name].double() + step * part).to(before[name]) for name, part in parts.items()}
            starts.append({**before, **raised})
        return starts


def _losses(models: Sequence[Params], subject: int, context: Context) -> FloatArray:
    """(T,) the loss on one example of T models."""
    examples = context.federation.audit.examples
    return np.asarray(answers(models, examples.inputs[[subject]], examples.targets[[subject]], context)[1, :, 0])
