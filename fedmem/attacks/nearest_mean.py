"""The public mean that explains a gradient best: the control that reads the gradient, and reconstructs nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from fedmem.attacks._population import population_of
from fedmem.attacks._problems import infer_or_guess_labels
from fedmem.attacks._targets import validate_targets
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.contracts.data import Examples

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class NearestMean:
    """Answers with means of groups of the population, those whose gradient points most nearly where the target's does.

    The labels are inferred from the gradient. The population's examples of each label are divided into `means` groups
    (k-means). The means of the groups are ordered by the cosine of their gradient with the target's. The examples of a
    label get the first mean, the second, and so on, and start again from the first. A label that the population lacks
    gets the mean of all. With one mean for each class, this is the guess from the labels alone.

    Beyond the gradient the attack uses public data alone, and its answers are means of public data. So an attack that
    is no nearer than this one has distinguished classes and styles, but no examples.

    Returns `num_images` inputs and sorted labels. `distance` is 1 - cos for the answers together, in 0..2, NaN if the
    gradient is zero or not finite.

    Fields

    - `means`: groups of each class; at most as many as it has different examples.

    Guarantees: the result of a target depends on its generator (k-means starts from it), and on no other target.

    Errors: `ComponentError` without a population, `RunError` when the model's last layer has no bias, `TargetError` if
    a target does not fit its model.

    >>> import torch
    >>> model = torch.nn.Linear(2, 2)
    >>> params = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}
    >>> rows = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]], np.float32)
    >>> gradient = {"weight": torch.tensor([[-0.5, 0.0], [0.5, 0.0]]), "bias": torch.tensor([-0.5, 0.5])}
    >>> from fedmem.modalities.tables import Tables
    >>> target = GradientTarget(
    ...     model=model, params=params, gradient=gradient, num_images=1, input_shape=(2,), num_classes=2,
    ...     modality=Tables(), knows="",
    ...     population=Examples(inputs=rows, targets=np.array([0, 0, 1]), ids=np.arange(3)),
    ... )
    >>> found, = NearestMean(means=2).reconstruct([target], [np.random.default_rng(0)])
    >>> found.inputs.tolist(), found.labels.tolist()
    ([[1.0, 0.0]], [0])
    """

    means: Annotated[int, Gt(0)] = 4

    @property
    def knows(self) -> tuple[str, ...]:
        """A population."""
        return ("population",)

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        """One answer per target, in their order."""
        return [self._reconstruct_one(target, rng) for target, rng in zip(validate_targets(targets), rngs, strict=True)]

    def _reconstruct_one(self, target: GradientTarget, rng: np.random.Generator) -> Reconstruction:
        population = population_of(target, "nearest_mean")
        labels = infer_or_guess_labels(target)
        gradient = _flatten([value.detach() for value in target.gradient.values()])
        inputs, total = [], 0.0 * gradient
        for label in np.unique(labels).tolist():
            guesses = self._means(population, label, rng)
            slopes = [_slope(target, guess, label) for guess in guesses]
            near = np.array([_cosine(slope, gradient) for slope in slopes])
            order = np.argsort(-np.nan_to_num(near, nan=-2.0), kind="stable")
            indices = np.resize(order, int((labels == label).sum())).tolist()
            inputs += [guesses[i] for i in indices]
            total = total + sum(slopes[i] for i in indices)
        return Reconstruction(inputs=np.stack(inputs), labels=labels, distance=1.0 - _cosine(total, gradient))

    def _means(self, population: Examples, label: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """(k, *shape) means of the groups of one class."""
        from sklearn.cluster import KMeans

        rows = (
            population.inputs[population.targets == label] if (population.targets == label).any() else population.inputs
        )
        flat = rows.reshape(len(rows), -1).astype(np.float64)
        count = 1 if rows is population.inputs else min(self.means, len(np.unique(flat, axis=0)))
        centres: FloatArray = flat.mean(axis=0, keepdims=True)
        if count > 1:
            seed = int(rng.integers(2**31))
            centres = KMeans(n_clusters=count, n_init=1, random_state=seed).fit(flat).cluster_centers_
        return centres.clip(0.0, 1.0).reshape(-1, *rows.shape[1:]).astype(np.float32)


def _slope(target: GradientTarget, image: NDArray[np.float32], label: int) -> Tensor:
    """The gradient of the loss of one example, as one vector in the order of the target's."""
    import torch
    from torch.func import functional_call
    from torch.nn import functional

    params = {name: value.detach().requires_grad_() for name, value in target.params.items()}
    inputs = torch.from_numpy(image[None]).to(next(iter(params.values())))
    with torch.enable_grad():
        loss = functional.cross_entropy(
            functional_call(target.model, params, (inputs,)), torch.tensor([label], device=inputs.device)
        )
        return _flatten(torch.autograd.grad(loss, [params[name] for name in target.gradient]))


def _flatten(values: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.cat([value.double().flatten() for value in values])


def _cosine(first: Tensor, other: Tensor) -> float:
    """NaN where one of them has no direction."""
    lengths = float(first.norm() * other.norm())
    return float(first @ other) / lengths if lengths else math.nan
