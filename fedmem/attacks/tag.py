"""Reconstruction of texts from a gradient: embeddings are searched, then read as the nearest tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt

from fedmem.attacks._problems import labels_of
from fedmem.attacks._targets import checked
from fedmem.components import GradientTarget, Reconstruction
from fedmem.errors import ComponentError
from fedmem.types import IntArray, Params

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Tag:
    """Finds token embeddings whose gradient is near to the target's, in squares and in absolute values, as TAG does.

    Minimises `sum over the parameters but the embedding's of |G - g|² + l1 |G - g|₁`, each divided by its value at
    G = 0, over embeddings (num_images, length, d), by Adam from normal noise as wide as the model's embeddings. Each is
    then read as the token whose embedding is nearest in Euclidean distance, the first of equally near ones.

    Inputs are token numbers: `input_shape` is (length,), and inputs hold whole numbers 0 .. V-1, as float32 like all
    inputs here, which the model has to make whole itself (`x.long()`). The first `torch.nn.Embedding` among its modules
    has to be the one that reads them. The model has one output for each class of a text.

    Returns token numbers (num_images, length), sorted labels (num_images,), and as `distance` |G - g|² / |g|² at these
    tokens over all parameters: 0 only where the tokens explain the gradient, NaN if it is zero or not finite.

    Fields

    - `steps`: optimisation steps of each restart.
    - `lr`: first step size; it falls to 0 in a straight line.
    - `l1`: weight of the absolute values beside the squares.
    - `restarts`: independent starts; the one with the smallest `distance` is taken.
    - `vocabulary`: whether `all` tokens are candidates, or those `touched`: plain descent changes the embeddings of no
      others, so that the embedding's gradient gives away which tokens there are, if no other layer shares its weights.
    - `labels`: whether labels are `inferred`, or `known` to the adversary.

    Guarantees:

    - restarts are chosen by the distance alone, never by the truth;
    - what a target gets does not depend on the targets beside it;
    - sign and scale of the gradient matter, unlike to a cosine: they have to be those of one step.

    Errors: `ComponentError` if the model has no embedding that reads its inputs, `TargetError` if a target does not
    fit.

    >>> import torch
    >>> class Text(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.embedding, self.output = torch.nn.Embedding(5, 8), torch.nn.Linear(16, 3)
    ...     def forward(self, x):
    ...         return self.output(self.embedding(x.long()).flatten(1))
    >>> _ = torch.manual_seed(0)
    >>> model = Text()
    >>> params = dict(model.named_parameters())
    >>> loss = torch.nn.functional.cross_entropy(model(torch.tensor([[4, 1]])), torch.tensor([2]))
    >>> gradient = dict(zip(params, torch.autograd.grad(loss, list(params.values()))))
    >>> target = GradientTarget(
    ...     model=model, params=params, gradient=gradient, num_images=1, input_shape=(2,), num_classes=3, knows=""
    ... )
    >>> found, = Tag(steps=200).reconstruct([target], [np.random.default_rng(0)])
    >>> found.inputs.tolist(), found.labels.tolist()
    ([[4.0, 1.0]], [2])

    Reference: Deng et al. (2021), TAG: Gradient Attack on Transformer-based Language Models.
    """

    steps: Annotated[int, Gt(0)] = 1000
    lr: Annotated[float, Gt(0)] = 0.05
    l1: Annotated[float, Ge(0)] = 0.1
    restarts: Annotated[int, Gt(0)] = 1
    vocabulary: Literal["all", "touched"] = "all"
    labels: Literal["inferred", "known"] = "inferred"

    @property
    def knows(self) -> tuple[str, ...]:
        """The labels, where they are given."""
        return ("labels",) if self.labels == "known" else ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        """One reconstruction per target, in their order."""
        for target in targets:
            _reading(target)
        return [self._one(target, rng) for target, rng in zip(checked(targets), rngs, strict=True)]

    def _one(self, target: GradientTarget, rng: np.random.Generator) -> Reconstruction:
        import torch

        name = _reading(target)
        table = target.params[f"{name}.weight"].detach().float()
        gradient = {key: value.detach().float() for key, value in target.gradient.items()}
        size = float(sum(value.double().square().sum() for value in gradient.values()))
        blank = not math.isfinite(size) or size == 0
        known = torch.arange(len(table), device=table.device)
        if self.vocabulary == "touched" and not blank:
            moved = gradient[f"{name}.weight"].abs().sum(1) > 0
            known = known[moved] if moved.any() else known
        labels = labels_of(target)
        best: tuple[float, IntArray] | None = None
        for _ in range(self.restarts):
            shape = (target.num_images, target.input_shape[0], table.shape[1])
            start = torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).to(table) * table.std(correction=0)
            found = start if blank else self._searched(target, name, gradient, labels, start)
            near = torch.cdist(found.flatten(0, 1), table[known]).argmin(1)
            tokens = known[near].reshape(shape[:2])
            slopes = _slopes(target, target.params, labels, tokens)
            away = sum((slopes[key].detach() - value).double().square().sum() for key, value in gradient.items())
            distance = math.nan if blank else float(away) / size
            if best is None or distance < best[0] or best[0] != best[0]:
                best = distance, tokens.cpu().numpy()
        assert best is not None
        return Reconstruction(inputs=best[1].astype(np.float32), labels=labels, distance=best[0])

    def _searched(self, target: GradientTarget, name: str, gradient: Params, labels: IntArray, start: Tensor) -> Tensor:
        """(n, length, d) embeddings whose gradient is near to the one that is wanted."""
        import torch

        wanted = {key: value for key, value in gradient.items() if key != f"{name}.weight"}
        params = {key: target.params[key].detach().float() for key in gradient}
        squares, sizes = (
            float(sum(measure(value).sum() for value in wanted.values())) + 1e-24
            for measure in (torch.square, torch.abs)
        )
        tokens = torch.zeros(start.shape[:2], dtype=torch.int64, device=start.device)
        found, first, second = start, torch.zeros_like(start), torch.zeros_like(start)
        for step in range(1, self.steps + 1):
            found = found.detach().requires_grad_()
            with _given(target.model, name, found):
                slopes = _slopes(target, params, labels, tokens, list(wanted))
            apart = [slopes[key] - value for key, value in wanted.items()]
            objective = torch.stack([part.square().sum() for part in apart]).sum() / squares
            objective = objective + self.l1 * torch.stack([part.abs().sum() for part in apart]).sum() / sizes
            (slope,) = torch.autograd.grad(objective, found)
            with torch.no_grad():
                slope.nan_to_num_(0.0)
                first.mul_(0.9).add_(slope, alpha=0.1)
                second.mul_(0.999).addcmul_(slope, slope, value=0.001)
                lr = self.lr * (1 - (step - 1) / self.steps)
                moves = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-12)
                found = found - lr * moves
        return found.detach()


def _reading(target: GradientTarget) -> str:
    """The name of the embedding that reads the tokens."""
    from torch import nn

    names: list[str] = [name for name, part in target.model.named_modules() if isinstance(part, nn.Embedding)]
    if not names or len(target.input_shape) != 1:
        raise ComponentError(
            "attack.kind",
            f"tag rebuilds sequences of tokens, (length,), that an embedding reads; the inputs have shape "
            f"{target.input_shape} and the model has {len(names)} layers torch.nn.Embedding; use inverting_gradients",
        )
    return names[0]


@contextmanager
def _given(model: nn.Module, name: str, embeddings: Tensor) -> Iterator[None]:
    """The embedding of the model answers with these, whatever it is asked."""
    hook = model.get_submodule(name).register_forward_hook(lambda *_: embeddings)
    try:
        yield
    finally:
        hook.remove()


def _slopes(
    target: GradientTarget, params: Params, labels: IntArray, tokens: Tensor, names: Sequence[str] | None = None
) -> Params:
    """The gradient of the mean loss in the parameters of these names, all if left out; can be differentiated again."""
    import torch
    from torch.func import functional_call
    from torch.nn import functional

    leaves = {key: value.detach().requires_grad_() for key, value in params.items()}
    names = list(target.gradient) if names is None else names
    with torch.enable_grad():
        outputs = functional_call(target.model, leaves, (tokens,))
        loss = functional.cross_entropy(outputs, torch.from_numpy(labels).to(outputs.device))
        found = torch.autograd.grad(loss, [leaves[key] for key in names], create_graph=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))
