"""Check that the trained parameters of a torch module represent it, with nothing that changes beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fedmem.contracts.model import frozen_tensors, trained_parameters
from fedmem.contracts.training_mode import layers_with_statistics, running_statistics

if TYPE_CHECKING:
    from torch import Tensor, nn

TOLERANCE = 1e-4
"""By how much of the largest output those for one example may differ by rounding."""


def perturb_parameters(module: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """The trained parameters plus normal noise, so that a layer that starts at zero hides nothing.

    Its standard deviation is half of one over the root of what a row of the parameter has: 0.5 for a vector.

    >>> from torch import nn
    >>> layer = nn.Linear(1, 1)
    >>> bool((perturb_parameters(layer)["bias"] == layer.bias).any())
    False
    """
    import torch

    rng = torch.Generator().manual_seed(seed)
    return {
        name: value.detach() + _scale(value) * torch.randn(value.shape, generator=rng).to(value)
        for name, value in trained_parameters(module).items()
    }


@contextmanager
def parameters_kept(module: nn.Module) -> Iterator[None]:
    """A block after which the module has the parameters that it had.

    `torch.func.functional_call` leaves others in a layer that stands under two names.

    >>> from torch import nn
    >>> from torch.func import functional_call
    >>> layer = nn.Linear(1, 1)
    >>> twice = nn.Sequential(layer, layer)
    >>> with parameters_kept(twice):
    ...     _ = functional_call(twice, perturb_parameters(twice), (layer.weight.detach(),))
    >>> isinstance(layer.weight, nn.Parameter)
    True
    """
    before = [(part, dict(part._parameters)) for part in module.modules()]
    try:
        yield
    finally:
        for part, parameters in before:
            part._parameters.update(parameters)


def _scale(value: Tensor) -> float:
    width = value.numel() // value.shape[0] if value.ndim and value.numel() else 1
    return float(0.5 / width**0.5)


def interaction(module: nn.Module, rows: Tensor, *, wild: bool = False) -> str | None:
    """Why the output for a row does not follow from that row alone, as the start of a message; None where it does.

    Compares the outputs for each row alone, for all rows, and for all rows in reverse order, to `TOLERANCE` of the
    largest output. With `wild` it also compares the first row among others that are ten times larger. `rows` (n, ...)
    are two or more. The comparison is made with the parameters as they are and as `perturb_parameters` changes them.

    >>> import torch
    >>> from torch import nn
    >>> interaction(nn.Linear(2, 3), torch.ones(2, 2)) is None
    True
    >>> interaction(nn.BatchNorm1d(2, track_running_stats=False), torch.eye(2))
    'cannot answer for a single example, although it answers for several'
    """
    import torch
    from torch.func import functional_call

    batches = [rows, rows.flip(0)]
    if wild:
        batches.append(torch.cat([rows[:1], 10 * rows[1:] + 1]))
    model_params: dict[str, Tensor] = {name: value.detach() for name, value in trained_parameters(module).items()}
    for params in (model_params, perturb_parameters(module)):
        with torch.no_grad():
            outputs = [functional_call(module, params, (batch,)) for batch in batches]
            if differ(functional_call(module, params, (rows,)), outputs[0]):
                return "gives two outputs for the same examples and parameters; its outputs must not be random"
            try:
                single_outputs = torch.cat(
                    [functional_call(module, params, (rows[i : i + 1],)) for i in range(len(rows))]
                )
            except (ValueError, RuntimeError):
                return "cannot answer for a single example, although it answers for several"
        expected_outputs = [single_outputs, single_outputs.flip(0), single_outputs[:1]]
        for expected, output in zip(expected_outputs, outputs, strict=False):
            if differ(expected, output[: len(expected)]):
                return "gives another output for an example when other examples of its batch change"
    return None


def differ(first: Tensor, other: Tensor) -> bool:
    """Whether two outputs differ by more than rounding; those that are not finite are compared by place."""
    import torch

    if first.shape != other.shape:
        return True
    first, other = first.double(), other.double()
    both = first.isfinite() & other.isfinite()
    if not torch.equal(first.isfinite(), other.isfinite()):
        return True
    if not both.any():
        return False
    first, other = first[both], other[both]
    return bool((first - other).abs().max() > TOLERANCE * first.abs().max().clamp(min=1e-3))


def mismatch(module: nn.Module, arrays: Mapping[str, Tensor]) -> str | None:
    """Why these arrays of an app are not a model of the module; None where names and shapes agree.

    They need the trained parameters of the module, and the running statistics of its layers in training mode. They may
    have its frozen parameters and other buffers as well.

    >>> from torch import nn
    >>> layer = nn.Linear(4, 3)
    >>> mismatch(layer, dict(layer.named_parameters())) is None
    True
    >>> mismatch(layer, {"weight": layer.weight}).partition(". ")[0]
    "the app's arrays lack 1 of the 2 parameters of the model, such as 'bias'"
    """
    trained = trained_parameters(module)
    allowed = {**trained, **frozen_tensors(module)}
    unknown = sorted(arrays.keys() - allowed.keys())
    missing = [name for name in trained if name not in arrays]
    if unknown:
        culprit = min([*unknown, *missing])
        return (
            f"the model and the app's arrays do not agree on parameter {culprit!r}, which only "
            f"{'the model has' if culprit in trained else 'the arrays have'}; give the architecture that the app "
            "trains"
        )
    if missing:
        return (
            f"the app's arrays lack {len(missing)} of the {len(trained)} parameters of the model, such as "
            f"{missing[0]!r}. Send all of them, or give the model whose parameters are those that are sent. "
            "Set requires_grad_(False) on those that the app does not train"
        )
    if unsent := [name for name in _updated_statistics(module) if name not in arrays]:
        return (
            f"the app's arrays lack the running statistics of the model, such as {unsent[0]!r}. Without them, the "
            "predictions of the app's models cannot be computed. Send the whole state_dict() instead of the parameters "
            "alone. Where no client updates the statistics, so that all use those of the model that you give here, "
            "put its layers into evaluation mode (model.eval())"
        )
    for name, value in arrays.items():
        if tuple(value.shape) != tuple(allowed[name].shape):
            return (
                f"parameter {name!r} has shape {tuple(value.shape)} in the app's arrays and "
                f"{tuple(allowed[name].shape)} in the model; give the architecture that the app trains"
            )
    return None


def _updated_statistics(module: nn.Module) -> list[str]:
    """The running statistics of layers that are in training mode."""
    updated = {name for name, layer in layers_with_statistics(module).items() if layer.training}
    return [name for name in running_statistics(module) if name.rpartition(".")[0] in updated]
