"""Running statistics that a strategy has aggregated."""

from __future__ import annotations

from collections.abc import Sequence

from fedmem.contracts.arrays import Params
from fedmem.contracts.training_mode import TrainingMode
from fedmem.errors import RunError


def require_variances(models: Params, mode: TrainingMode, round_number: int) -> None:
    """Find out whether running variances that clients are sent are variances.

    Args:
        models: One model, or models with a leading axis.
        mode: Names the running statistics.
        round_number: The round that they come from; 0 for the initial model.

    Errors: `RunError` where one is negative, since normalising by its root gives NaN.

    >>> import torch
    >>> mode = TrainingMode(statistics=("norm.running_mean", "norm.running_var"))
    >>> require_variances({"norm.running_var": torch.tensor([0.5, -0.1])}, mode, 3)
    Traceback (most recent call last):
    fedmem.errors.RunError: round 3: after aggregation the running variance 'norm.running_var' is -0.1, and...
    """
    for name in mode.statistics:
        if not name.endswith("running_var") or name not in models:
            continue
        smallest = float(models[name].min()) if models[name].numel() else 0.0
        if smallest < 0:
            raise RunError(
                f"round {round_number}: after aggregation the running variance {name!r} is {smallest:.3g}, and no "
                "model can normalise by a negative variance. A strategy that steps beyond the mean of its clients "
                "treats it like a parameter. Momentum, adaptive steps and a server learning rate above 1 do so. Use a "
                "strategy that averages, such as fedavg, or norm: {kind: local}, {kind: frozen} or {kind: to_group}"
            )


def require_final_variances(params: Sequence[Params], mode: TrainingMode, rounds: int) -> None:
    """The same for the last global models of all runs."""
    for model in params:
        require_variances(model, mode, rounds)
