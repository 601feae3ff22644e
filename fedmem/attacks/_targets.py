"""Whether a target can be attacked at all: a target that cannot be matched is refused before the optimisation."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from fedmem.contracts.attack import GradientTarget
from fedmem.contracts.model import trained_parameters
from fedmem.errors import TargetError

ROWS = 16
"""Of the batch that a model is tried on."""


def validate_targets(targets: Sequence[GradientTarget]) -> Sequence[GradientTarget]:
    """The same targets. Errors: `TargetError` if one does not fit its model, or its model cannot be matched.

    Shapes and models are looked at, not numbers: an update of zeros is a legal measurement, whose distance is NaN. To
    refuse one, ask `require_direction`.
    """
    checked_targets: list[GradientTarget] = []
    for target in targets:
        _check_shapes(target)
        # targets of one federation share model and shapes, and a model is called only once
        if not any(
            other.model is target.model and other.input_shape == target.input_shape for other in checked_targets
        ):
            _check_model(target)
            checked_targets.append(target)
    return targets


def require_direction(target: GradientTarget) -> GradientTarget:
    """The same target. Errors: `TargetError` if its gradient has no direction: all zeros, or not finite."""
    for name, value in target.gradient.items():
        if not value.isfinite().all():
            raise TargetError(
                f"the update has numbers in {name!r} that are not finite: training diverged there, and nothing can be "
                "matched. Attack an earlier round, or train with a smaller lr"
            )
    if not any(value.any() for value in target.gradient.values()):
        raise TargetError(
            "the update is zero everywhere: both models are the same. Give the model before training and the one after "
            "it, and check that the client trained at all"
        )
    return target


def _check_shapes(target: GradientTarget) -> None:
    """Names and shapes of parameters, gradient and update; counts."""
    if target.num_images < 1:
        raise TargetError(f"num_images is {target.num_images}: at least one example shaped an update; say how many")
    if target.labels is not None and len(target.labels) != target.num_images:
        raise TargetError(f"{len(target.labels)} labels for {target.num_images} images; give as many")
    model_shapes = {name: tuple(value.shape) for name, value in trained_parameters(target.model).items()}
    for what, values in (("params", target.params), ("gradient", target.gradient), ("update", target.update)):
        if values is None:
            continue
        shapes = {name: tuple(value.shape) for name, value in values.items()}
        odd = sorted((model_shapes.keys() - (set() if what == "params" else set(target.personal))) ^ shapes.keys())
        if odd:
            explanation = "the model has none" if odd[0] in shapes else "only the model has one"
            raise TargetError(f"{what}: {odd[0]!r} is amiss, {explanation}; give the architecture that was trained")
        for name, shape in shapes.items():
            if shape != model_shapes[name]:
                raise TargetError(
                    f"{what}: {name!r} has shape {shape}, the model's has {model_shapes[name]}; give the architecture "
                    "that was trained, with the same sizes"
                )


def _check_model(target: GradientTarget) -> None:
    """A model whose gradient follows from inputs and parameters, and that takes such inputs."""
    import torch
    from torch.func import functional_call
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.dropout import _DropoutNd

    for name, part in target.model.named_modules():
        place = f"{type(part).__name__} at {name!r}" if name else type(part).__name__
        if isinstance(part, _BatchNorm) and (part.training or not part.track_running_stats):
            raise TargetError(
                f"the model has {place}, which normalised with the mean and variance of each batch. An attacker does "
                "not know these, so the gradient cannot be computed again. If the client trained in mode eval, say so "
                "(--mode eval), else train with GroupNorm"
            )
        if isinstance(part, _DropoutNd) and part.training and part.p > 0:
            raise TargetError(
                f"the model has {place}, which dropped units at random, so its gradient cannot be computed again. "
                "If the client trained in mode eval, say so (--mode eval), else train without dropout"
            )
    example = next(iter(target.params.values()))
    # rows enough that chance in the model shows
    inputs = torch.full((ROWS, *target.input_shape), 0.5, dtype=torch.float32, device=example.device)
    # at 0.5 every token is the first one
    inputs = inputs.long() if target.target_shape else inputs
    try:
        with torch.no_grad():
            first, again = (
                functional_call(copy.deepcopy(target.model), dict(target.params), (inputs,)) for _ in range(2)
            )
        shape = tuple(first.shape)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise TargetError(
            f"the model cannot be called on inputs of shape {tuple(target.input_shape)}: {error}; give input_shape "
            "without the axis of the batch"
        ) from error
    if shape != (ROWS, *target.target_shape, target.num_classes):
        raise TargetError(
            f"the model gives outputs of shape {shape[1:]} for {target.num_classes} classes; attacks match the "
            f"cross-entropy of one output for each class{' at each place' if target.target_shape else ''}"
        )
    if not torch.allclose(first, again, equal_nan=True):
        raise TargetError(
            "the model gives other outputs for the same inputs when called again, so its gradient cannot be computed. "
            "If the client trained in mode eval, say so (--mode eval), else train without dropout"
        )
