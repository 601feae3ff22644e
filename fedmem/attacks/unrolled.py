"""Reconstruction from an update of many steps, by doing the client's local training again with the reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt

from fedmem.attacks._descent import descend
from fedmem.attacks._matching import total_variation
from fedmem.attacks._problems import Problem, Solution, best_restarts, starts
from fedmem.attacks._targets import validate_targets
from fedmem.attacks._training import Training
from fedmem.contracts.arrays import IntArray
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.contracts.client import PrivateAlgorithm
from fedmem.errors import TargetError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Unrolled:
    """Finds images from which the client's own training leads where its update leads.

    Where a client took several steps its update is no gradient. Here its whole algorithm, with its learning rate and
    steps, is run on the reconstructions from the same model. All its steps are differentiated. It minimises
    `1 - cos(update(x, y), u) + tv * TV(x)` over images x in [0, 1], where u is the sent model minus the model before.
    Adam takes the sign of the gradient in x, and x is clipped after every step. The step shrinks tenfold at 3/8, 5/8
    and 7/8 of the way.

    Takes targets of one model, of any number of images each, each the work of one client. Returns images (num_images,
    *input_shape), sorted labels (num_images,) and the distance `1 - cos` in 0..2; lower is better.

    Fields

    - `steps`: optimisation steps; each repeats all local steps.
    - `lr`: first step size; 0.1 is a tenth of the range of a pixel.
    - `tv`: weight of total variation, the mean absolute difference between neighbouring pixels of every channel.
    - `restarts`: independent starts for each target.
    - `labels`: whether labels are `known` to the adversary, or `inferred` from the mean gradient of all steps.
    - `order`: whether the images of each batch are `known`, or `drawn` by each start, as the client would draw them. A
      drawn order is right for one step on all images, and a guess for more. A known order gives the batches of known
      labels, but not of inferred labels. With those, each start draws which label stands at which place, and for a
      single epoch this is no better than `drawn`.

    Guarantees:

    - it knows the model, its parameters, the update, the number of images and the client's algorithm. It knows labels
      and batches if so declared, and no image;
    - restarts are chosen by the distance alone, never by the truth;
    - for one step on all images it minimises what `inverting_gradients` does;
    - the client is assumed to keep nothing between rounds, and defences are not repeated. An adversary that did either
      would reach more;
    - computed in float64, since an update is a small difference of parameters;
    - a target without a direction gets a distance of NaN.

    Errors: `TargetError` if a target does not fit its model, or lacks what the attack declares to know. Also if it is
    the work of several clients, or of one that clips and hides the gradient of each record. `RunError` when the model's
    last layer has no bias to read labels from.

    >>> import torch
    >>> from fedmem.clients.sgd import Sgd
    >>> from torch.nn import functional
    >>> model, image = torch.nn.Linear(4, 3), torch.tensor([[0.1, 0.9, 0.4, 0.6]])
    >>> before = {name: value.detach().clone() for name, value in model.named_parameters()}
    >>> for _ in range(3):
    ...     model.zero_grad()
    ...     functional.cross_entropy(model(image), torch.tensor([2])).backward()
    ...     for value in model.parameters():
    ...         value.data -= 0.5 * value.grad
    >>> update = {name: value.detach() - before[name] for name, value in model.named_parameters()}
    >>> from fedmem.modalities.tables import Tables
    >>> target = GradientTarget(
    ...     model=model, params=before, update=update, gradient={n: -u / 1.5 for n, u in update.items()}, num_images=1,
    ...     input_shape=(4,), num_classes=3,
    ...     modality=Tables(), knows="", algorithm=Sgd(lr=0.5, steps=3), batches=np.zeros((3, 1), int)
    ... )
    >>> found, = Unrolled(tv=0.0).reconstruct([target], [np.random.default_rng(0)])
    >>> found.labels.tolist(), [round(pixel, 2) for pixel in found.inputs[0].tolist()]
    ([2], [0.1, 0.9, 0.4, 0.6])

    Reference: Geiping, Bauermeister, Dröge and Moeller (2020), Inverting Gradients, section on federated averaging.
    Unknown orders follow Dimitrov, Balunović, Konstantinov and Vechev (2022), Data Leakage in Federated Averaging,
    without their prior over epochs.
    """

    steps: Annotated[int, Gt(0)] = 300
    lr: Annotated[float, Gt(0)] = 0.1
    tv: Annotated[float, Ge(0)] = 1e-4
    restarts: Annotated[int, Gt(0)] = 1
    labels: Literal["inferred", "known"] = "known"
    order: Literal["known", "drawn"] = "known"

    @property
    def knows(self) -> tuple[str, ...]:
        """The algorithm, and labels and batches where they are given."""
        labels = ("labels",) if self.labels == "known" else ()
        return (*labels, "algorithm", *(("batches",) if self.order == "known" else ()))

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        """One reconstruction per target, in their order."""
        problems = [
            replace(problem, batches=self._batches(problem.target, rngs[problem.index]))
            for problem in starts(
                [_require_one_known_client(target) for target in validate_targets(targets)], rngs, self.restarts
            )
        ]
        longest = max((len(problem.batches) for problem in problems if problem.batches is not None), default=1)
        return best_restarts(problems, self._solve, times=longest)

    def _batches(self, target: GradientTarget, rng: np.random.Generator) -> IntArray:
        """Those of the client, as far as it is known whose label is whose, or some that it might have drawn."""
        assert target.algorithm is not None
        if self.order == "drawn":
            return target.algorithm.batches(target.num_images, rng)
        if target.batches is None:
            raise TargetError(
                "batches: `order: known` needs the batches of the client, which are not known here. Use `order: drawn` "
                "(in commands attack.order=drawn), or give fedmem attack --labels and --in-order. Where a probe "
                "reconstructs fewer images than were trained on, raise its max_images"
            )
        if target.labels is not None:
            return target.batches
        # nobody says whose label is whose
        places = rng.permutation(target.num_images)
        return np.where(target.batches >= 0, places[target.batches], -1)

    def _solve(self, problems: Sequence[Problem]) -> list[Solution]:
        """Optimise a stack of problems."""
        return descend(
            problems,
            Training(problems),
            Training.cosine,
            self._smoothness,
            steps=self.steps,
            lr=self.lr,
            signed=True,
        )

    def _smoothness(self, stack: Training, images: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = total_variation(images, stack.weights, stack.axes)
        return self.tv * value, slope.mul_(self.tv)


def _require_one_known_client(target: GradientTarget) -> GradientTarget:
    """The same target, if one client's work is all that is behind it, and it is known how that client works."""
    if target.clients > 1:
        raise TargetError(
            f"unrolled does the training of one client again, but the update is the work of {target.clients}; attack "
            "what single clients send (in a scenario, `levels: [local]`)"
        )
    if target.algorithm is None or target.update is None:
        raise TargetError(
            "unrolled needs the update and the client's algorithm, and here is a gradient alone. Give the models "
            "before and after training, or use inverting_gradients"
        )
    if isinstance(target.algorithm, PrivateAlgorithm):
        raise TargetError(
            "unrolled repeats what a client does with the mean gradient of a batch, but "
            f"{type(target.algorithm).__name__} clips the gradient of each record and adds unknown noise. Use "
            "inverting_gradients"
        )
    return target
