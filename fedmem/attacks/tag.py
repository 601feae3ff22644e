"""Reconstruction of texts from a gradient: embeddings are searched, then read as the nearest tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt

from fedmem.attacks._labels import last_bias_name
from fedmem.attacks._problems import STACK_VALUES, Problem, Solution, best_restarts, labels_of
from fedmem.attacks._soft_tokens import Soft, may_stand, replace_embedding, slopes_at, slopes_of, were_read
from fedmem.attacks._targets import validate_targets
from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.errors import ComponentError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Tag:
    """Finds texts whose gradient is near to the target's, in squares and in absolute values, as TAG does.

    Minimises `sum over parameters of |G - g|² + l1 |G - g|₁`, each divided by its value at G = 0, by Adam. The search
    space and the output depend on the task of the model:

    - one class for each text: the attack searches embeddings (num_images, length, d), from normal noise as wide as the
      model's. Each is then read as the token whose embedding is nearest in Euclidean distance, the first of equally
      near ones. The gradient of the embedding itself is not matched. Labels are sorted, (num_images,);
    - the next token at each place (`target_shape` is (length,)): It searches shares of tokens at length + 1 places, a
      softmax, from normal noise of width 0.1. It also searches where each text ends; at first the most probable end is
      none. A token is both an input and a target: the embedding of a place is the mean of the embeddings by its shares.
      So the gradient of the embedding is matched as well. For at most four texts, other ends and last tokens are then
      tried, and the smallest distance wins. Labels are the next tokens, (num_images, length), -1 from the end of a text
      on.

    Inputs are token numbers (num_images, length): whole numbers 0 .. V-1, as float32 for the
    task of one class. The first `torch.nn.Embedding` among the modules of the model has to be the one that reads them.

    `distance` is |G - g|² / |g|² at the reconstructed tokens, over all parameters: 0 only where they explain the
    gradient, NaN if that is zero or not finite.

    Fields

    - `steps`: optimisation steps of each restart.
    - `lr`: first step size; it falls to 0 in a straight line.
    - `l1`: weight of the absolute values relative to the squares.
    - `restarts`: independent starts; the one with the smallest `distance` is taken.
    - `vocabulary`: whether `all` tokens are candidates, or those `touched`. Plain descent changes no other embeddings.
      So the embedding's gradient leaks which tokens are read, if no other layer shares its weights. For an update of
      several clients, only embeddings that moved by more than the rounding of their mean count. Last tokens are not
      read: inside a row they may also be tokens whose output bias has a negative gradient, and at its end any. Noise
      and weight decay leave nothing untouched; servers with a state add tokens of earlier rounds. Pruning, also by the
      client `top_k`, hides true ones and requires `all`.
    - `labels`: whether labels are `inferred`, or `known` to the adversary; next tokens are the text, and never known.

    Guarantees:

    - restarts are chosen by the distance alone, never by the truth;
    - the result of a target does not depend on other targets;
    - sign and scale of the gradient matter, unlike for a cosine: they have to be those of one step.

    Errors: `ComponentError` if the model has no embedding that reads its inputs, or next tokens should be known,
    `TargetError` if a target does not fit.

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
    >>> from fedmem.modalities.texts import Texts
    >>> target = GradientTarget(
    ...     model=model, params=params, gradient=gradient, num_images=1, input_shape=(2,), num_classes=3,
    ...     modality=Texts(), knows=""
    ... )
    >>> found, = Tag(steps=200).reconstruct([target], [np.random.default_rng(0)])
    >>> found.inputs.tolist(), found.labels.tolist()
    ([[4.0, 1.0]], [2])

    Reference: Deng et al. (2021), TAG: Gradient Attack on Transformer-based Language Models.
    """

    texts: ClassVar[bool] = True

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
            if target.target_shape and self.knows:
                raise ComponentError(
                    "attack.labels",
                    "the labels are the next tokens here, which are the text itself; write `labels: inferred`",
                )
        problems = [
            problem
            for index, (target, rng) in enumerate(zip(validate_targets(targets), rngs, strict=True))
            for problem in self._starts(index, target, rng)
        ]
        # each by itself: a stack of one is as fast, since texts are searched step by step
        return best_restarts(problems, self._solve, times=STACK_VALUES)

    def _starts(self, index: int, target: GradientTarget, rng: np.random.Generator) -> list[Problem]:
        """The restarts of one target, from normal noise."""
        table = target.params[f"{_reading(target)}.weight"]
        (length,) = target.input_shape
        shape = (length + 1, len(table)) if target.target_shape else (length, table.shape[1])
        labels = np.empty(0, dtype=np.int64) if target.target_shape else labels_of(target)
        return [
            Problem(
                index=index,
                target=target,
                inputs=rng.standard_normal((target.num_images, *shape)).astype(np.float32),
                labels=labels,
            )
            for _ in range(self.restarts)
        ]

    def _solve(self, problems: Sequence[Problem]) -> list[Solution]:
        return [(self._windows if problem.target.target_shape else self._classes)(problem) for problem in problems]

    def _classes(self, problem: Problem) -> Solution:
        """Texts with a class each."""
        import torch

        target, labels = problem.target, problem.labels
        name = _reading(target)
        table = target.params[f"{name}.weight"].detach().float()
        start = torch.from_numpy(problem.inputs).to(table) * table.std(correction=0)
        points, gradient = start, _target_gradient(target)
        if _size(gradient) > 0:
            params = {key: target.params[key].detach().float() for key in gradient}
            other_names = [key for key in gradient if key != f"{name}.weight"]
            tokens = torch.zeros(start.shape[:2], dtype=torch.int64, device=start.device)

            def slopes(embeddings: Sequence[Tensor]) -> Params:
                with replace_embedding(target.model, name, embeddings[0]):
                    return _slopes(target, params, labels, tokens, other_names)

            (points,) = self._descend([start], slopes, {key: gradient[key] for key in other_names})
        token_numbers = torch.arange(len(table), device=table.device)[self._readable_tokens(target, name)]
        near = torch.cdist(points.flatten(0, 1), table[token_numbers]).argmin(1)
        read = token_numbers[near].reshape(start.shape[:2])
        distance = _distance(_slopes(target, target.params, labels, read), gradient)
        return Solution(inputs=read.cpu().numpy().astype(np.float32), labels=labels, distance=distance)

    def _windows(self, problem: Problem) -> Solution:
        """Texts of which the next token is asked at each place."""
        import torch

        target, gradient = problem.target, _target_gradient(problem.target)
        name = _reading(target)
        table = target.params[f"{name}.weight"]
        soft = Soft.start(torch.from_numpy(problem.inputs).to(table.device))
        allowed = may_stand(target, name, self._readable_tokens(target, name))
        if _size(gradient) > 0:
            tokens, ends = self._descend(
                [soft.tokens, soft.ends],
                lambda values: slopes_of(target, name, Soft(tokens=values[0], ends=values[1]), allowed),
                gradient,
            )
            soft = Soft(tokens=tokens, ends=ends)
        texts = soft.most_probable_tokens(allowed)
        distance = _distance(slopes_at(target, texts), gradient)
        if len(texts) <= FEW and EXACT < distance < NEARBY:
            texts, distance = _search_ends(target, gradient, soft, allowed, texts, distance)
        return Solution(inputs=np.maximum(texts[:, :-1], 0), labels=texts[:, 1:], distance=distance)

    def _readable_tokens(self, target: GradientTarget, name: str) -> Tensor:
        """(V,) whether a token may be read."""
        is_read = were_read(target, name)
        return is_read if self.vocabulary == "touched" else is_read.new_ones(len(is_read))

    def _descend(
        self, starts: Sequence[Tensor], slopes: Callable[[Sequence[Tensor]], Params], gradient: Params
    ) -> list[Tensor]:
        """Where Adam comes to from these starts, when the slopes there should be those wanted."""
        import torch

        squares, sizes = (
            float(sum(measure(value).sum() for value in gradient.values())) + 1e-24
            for measure in (torch.square, torch.abs)
        )
        points = list(starts)
        first, second = ([torch.zeros_like(point) for point in starts] for _ in range(2))
        for step in range(1, self.steps + 1):
            points = [point.detach().requires_grad_() for point in points]
            at = slopes(points)
            differences = [at[key] - value for key, value in gradient.items()]
            objective = torch.stack([part.square().sum() for part in differences]).sum() / squares
            objective = objective + self.l1 * torch.stack([part.abs().sum() for part in differences]).sum() / sizes
            lr = self.lr * (1 - (step - 1) / self.steps)
            with torch.no_grad():
                for i, slope in enumerate(torch.autograd.grad(objective, points)):
                    slope.nan_to_num_(0.0)
                    first[i].mul_(0.9).add_(slope, alpha=0.1)
                    second[i].mul_(0.999).addcmul_(slope, slope, value=0.001)
                    moves = first[i] / (1 - 0.9**step) / ((second[i] / (1 - 0.999**step)).sqrt() + 1e-12)
                    points[i] = points[i] - lr * moves
        return [point.detach() for point in points]


LAST = 3
"""The most probable tokens, so many, that are tried at the end of a text."""

ASKED = 8
"""Tokens that are tried there beside them: those that the gradient of the output's bias says were asked for."""

NEAR = (-1, 0, 1, 2)
"""Where else, counted in tokens, the end of a text is sought."""

PASSES = 3
"""How often all texts are gone through at most."""

EXACT, NEARBY = 1e-9, 0.6
"""Ends are tried out between these distances: nearer, tokens explain the gradient; further, nothing would."""

FEW = 4
"""Texts of which ends are tried out at most: each of them costs some hundred gradients."""


def _search_ends(
    target: GradientTarget, gradient: Params, soft: Soft, allowed: Tensor, texts: IntArray, distance: float
) -> tuple[IntArray, float]:
    """Texts whose ends and last tokens were tried out by the distance, text after text, as long as something is nearer.

    A search that moves all at once often takes a text for a token too short or too long.
    """
    import torch

    name = last_bias_name(target.gradient, target.num_classes)
    bias = gradient[name].cpu().numpy() if name else np.zeros(target.num_classes)
    order = np.argsort(bias, kind="stable")[:ASKED]
    last_tokens = order[bias[order] < 0].tolist()
    ranked = soft.tokens.masked_fill(~allowed, -torch.inf).argsort(dim=2, descending=True, stable=True).cpu().numpy()
    width = texts.shape[1]
    for _ in range(PASSES):
        before = distance
        for row in range(len(texts)):
            if distance < EXACT:
                return texts, distance
            first, length = texts[row].copy(), int((texts[row] >= 0).sum())
            for end in sorted({min(max(length + step, 2), width) for step in NEAR}):
                for last in dict.fromkeys([*ranked[row, end - 1, :LAST].tolist(), *last_tokens]):
                    other = texts.copy()
                    other[row] = np.where(np.arange(width) < end, ranked[row, :, 0], -1)
                    other[row, : min(length, end) - 1] = first[: min(length, end) - 1]
                    other[row, end - 1] = last
                    if (away := _distance(slopes_at(target, other), gradient)) < distance:
                        texts, distance = other, away
        if distance == before:
            break
    return texts, distance


def _reading(target: GradientTarget) -> str:
    """The name of the embedding that reads the tokens."""
    from torch import nn

    names: list[str] = [name for name, part in target.model.named_modules() if isinstance(part, nn.Embedding)]
    if not names or not target.modality.tokens:
        raise ComponentError(
            "attack.kind",
            f"tag reconstructs sequences of tokens, (length,), that an embedding reads; the inputs have shape "
            f"{target.input_shape} and the model has {len(names)} layers torch.nn.Embedding; use inverting_gradients",
        )
    return names[0]


def _target_gradient(target: GradientTarget) -> Params:
    return {key: value.detach().float() for key, value in target.gradient.items()}


def _size(gradient: Params) -> float:
    """The squared length, 0 where it is not finite: there is nothing to match."""
    size = float(sum(value.double().square().sum() for value in gradient.values()))
    return size if math.isfinite(size) else 0.0


def _distance(slopes: Params, gradient: Params) -> float:
    """The squared distance as a share of the squared length of what is wanted; NaN without one."""
    away = sum((slopes[key].detach() - value).double().square().sum() for key, value in gradient.items())
    return float(away) / size if (size := _size(gradient)) else math.nan


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
        slopes = torch.autograd.grad(loss, [leaves[key] for key in names], create_graph=True, materialize_grads=True)
    return dict(zip(names, slopes, strict=True))
