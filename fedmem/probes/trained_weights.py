"""Reconstruction of audit examples from the weights of a trained model alone, at an owner and at the aggregate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import Reconstruction, ReconstructionAttack
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Level, Measurement, Reading
from fedmem.contracts.probe import BuiltNetwork, Context
from fedmem.contracts.validation_of_measures import reconstruct
from fedmem.errors import Problem
from fedmem.probes._cases import Case, Scope
from fedmem.probes._leak_measures import ATTACK_LABELS, ATTACKED, WEIGHTS
from fedmem.probes._leakage_summary import summed_up
from fedmem.probes._measures import check_reconstruction, of_victim
from fedmem.probes._victims import score


@dataclass(frozen=True, kw_only=True)
class TrainedWeights:
    """Attacks the weights of a model after a round, without any update, and scores whether audit examples come back.

    The adversary has the weights that a client sent, or those of the aggregate. It has the architecture, the number of
    rows, and what the attack declares. It has neither a model before nor learning rates. Readings of victims
    and of controls (`coin` = `out`) are those of the probe `leakage`. Galleries, baseline guesses and places are the
    same. So `identified` needs a reconstruction that is strictly nearer to the example than any is to an
    image of the gallery. Nothing is matched on the truth first. Its chance is at most 1 / (peers + 1), and without
    leakage the difference of in and out has mean 0.

    An attack that fails may have failed as a search, or because the model does not meet its condition. Four readings of
    each model tell these apart. With n true rows, weights theta and margins Phi_i = f_y − max_{c != y} f_c they are

    - `kkt_residual`: min over lambda >= 0 of `|theta − sum_i lambda_i grad Phi_i(x_i)| / |theta|`, in 0..1. Where it is
      near 1, the true rows themselves do not explain the weights, and no search can succeed. The `distance` of the
      attack `kkt` is the same for what it found. A `distance` above `kkt_residual` means that the search failed. One
      below it means that other inputs explain the weights as well;
    - `loss_gradient`: the norm of the gradient of the mean loss over the rows, without weight decay;
    - `least_margin`: the least margin over the rows; below 0 some row is classified wrongly, and the condition of a
      largest margin does not apply;
    - `candidate_spread`: how different reconstructed inputs are from the nearest other one.

    A model that is not finite has NaN for the first three, which do not count.

    Fields

    - `attack`: how inputs are found from weights: `kkt`, or as controls `class_inversion`, `grey`, `training_mean`.
      Attacks that read an update find none here.
    - `victims`: clients attacked in each round and run; the aggregate is scored on the examples of the same clients.
    - `runs`: how many runs are attacked, from run 0 on.
    - `gallery`: how many images a gallery has at most, except for the references of canaries.
    - `max_images`: of more rows than these, fewer are sought, with labels in proportion.
    - `rounds`: which observed rounds to attack; if left out, the last, or those of `every`.
    - `every`: attack only rounds that this divides, and the last.
    - `levels`: where to attack.

    Guarantees: nothing is changed; deterministic; the readings of a run do not depend on other runs.

    Refused for texts, and for networks without logits of two classes or more.

    Errors: `ComponentError` if the client algorithm declares no schedule.

    >>> from fedmem.attacks.grey import Grey
    >>> TrainedWeights(attack=Grey()).levels
    ('local', 'global')

    Reference: Haim, Vardi, Yehudai, Shamir and Irani (2022), Reconstructing Training Data from Trained Neural Networks.
    """

    measures: ClassVar[tuple[Measure, ...]] = (*ATTACKED, *WEIGHTS)
    row_labels: ClassVar[tuple[Label, ...]] = ATTACK_LABELS
    compares_held_out: ClassVar[bool] = True
    reads_gradients: ClassVar[bool] = True
    reads_numbers: ClassVar[bool] = True

    attack: ReconstructionAttack
    victims: Annotated[int, Gt(0)] = 2
    runs: Annotated[int, Gt(0)] = 8
    gallery: Annotated[int, Gt(0)] = 2000
    max_images: Annotated[int, Gt(0)] = 64
    rounds: tuple[Annotated[int, Gt(0)], ...] = ()
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def network_problems(self, built: BuiltNetwork) -> list[Problem]:
        """Whether the network has no margins."""
        import torch

        parameter = next(built.network.parameters())
        was_training = built.network.training
        with torch.no_grad():
            sample = torch.zeros(1, *built.shape, dtype=parameter.dtype, device=parameter.device)
            outputs = built.network.eval()(sample)
        built.network.train(was_training)
        match tuple(outputs.shape[1:]):
            case (count,) if count > 1:
                return []
        message = (
            "trained_weights reads margins, the logit of the label minus the largest other one, but the outputs of "
            f"one row have the shape {tuple(outputs.shape[1:])}. Use a classifier, or leave the probe out"
        )
        return [Problem(path="", message=message)]

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Attack the models of this round, if it is one of those to attack."""
        first = transitions[0]
        if first.level == "sum" or first.round not in self._attacked_rounds(context):
            return []
        knows = tuple(self.attack.knows)
        scope = Scope(runs=self.runs, victims=self.victims, max_images=self.max_images, knows=knows)
        cases = [weights_alone(case) for case in scope.cases("model", transitions, context)]
        rngs = [
            context.stream("trained weights", run=t.run, round_number=t.round, client=t.client)
            for t in (case.transition for case in cases)
        ]
        found = reconstruct(self.attack, [case.target for case in cases], rngs) if cases else ()
        return [
            (case.transition, reading)
            for case, result in zip(cases, found, strict=True)
            for reading in self._of(case, check_reconstruction(case, result), context)
        ]

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means by kind, over victims and over controls, and their differences; of models, means over them."""
        return summed_up(measurements, self.measures)

    def _attacked_rounds(self, context: Context) -> tuple[int, ...]:
        """The rounds to attack."""
        if self.rounds:
            return self.rounds
        last, every = context.observed_rounds[-1], self.every
        return tuple(r for r in context.observed_rounds if r > 0 and (r == last or (every and r % every == 0)))

    def _of(self, case: Case, result: Reconstruction, context: Context) -> Iterator[Reading]:
        for victim in score(case, result, context, self.gallery):
            yield from of_victim(victim)
        values = {
            "distance": result.distance,
            "coverage": len(result.inputs) / len(case.rows),
            **condition(case, context.federation),
            "candidate_spread": candidate_spread(result.inputs),
        }
        for metric, value in values.items():
            yield Reading(metric=metric, value=value, n=int(not math.isnan(value)), labels=case.labels)


def weights_alone(case: Case) -> Case:
    """The same case with a target that has the weights after the round, and no update or gradient."""
    target, update = case.target, case.target.update or {}
    after = {
        name: value.double() + update[name] if name in update else value.double()
        for name, value in target.params.items()
    }
    params = {name: value.to(target.params[name].dtype) for name, value in after.items()}
    return replace(case, target=replace(target, params=params, update=None, gradient={}))


def condition(case: Case, federation: Federation) -> dict[str, float]:
    """`kkt_residual`, `loss_gradient` and `least_margin` of a model on the true rows; NaN where it is not finite."""
    import torch
    from torch.func import functional_call

    from fedmem.training.largest_margin import margins, unexplained_share

    model, names = case.target.model, [measure.name for measure in WEIGHTS[:3]]
    weights = {name: value.detach().double() for name, value in case.target.params.items()}
    inputs = torch.from_numpy(np.asarray(federation.store.inputs[case.rows], np.float64))
    labels = torch.from_numpy(federation.store.labels[case.rows])
    residual = unexplained_share(model, weights, inputs, labels)
    if math.isnan(residual):
        return dict.fromkeys(names, math.nan)
    leaves = {name: value.requires_grad_() for name, value in weights.items()}
    with torch.enable_grad():
        outputs = functional_call(model, leaves, (inputs,))
        loss = torch.nn.functional.cross_entropy(outputs, labels)
        slopes = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    norm = math.sqrt(sum(float(slope.square().sum()) for slope in slopes))
    values = (residual, norm, float(margins(outputs.detach(), labels).min()))
    return {name: value if math.isfinite(value) else math.nan for name, value in zip(names, values, strict=True)}


def candidate_spread(inputs: FloatArray) -> float:
    """The mean root mean square difference of each of m inputs from the nearest other one; NaN for one.

    >>> candidate_spread(np.array([[0.0], [0.0], [0.5]]))
    0.16666666666666666
    """
    if len(inputs) < 2:
        return math.nan
    flat = inputs.reshape(len(inputs), -1).astype(np.float64)
    squares = np.array([np.square(flat - row).mean(axis=1) for row in flat])
    squares[np.diag_indices_from(squares)] = math.inf
    return float(np.sqrt(squares.min(axis=1)).mean())
