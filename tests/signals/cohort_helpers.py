"""Rounds of a few clients with models that a test chooses, read on the test set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.observation.signals import _SignalContext
from tests.signals.signals_helpers import Bench


def mean_of(models: Sequence[Params], weights: Sequence[float]) -> Params:
    """The weighted mean, in float64 and then in the type of the first model."""
    total = sum(weights)
    return {
        name: sum(w / total * model[name].double() for w, model in zip(weights, models, strict=True)).to(value.dtype)  # type: ignore[union-attr]
        for name, value in models[0].items()
    }


def round_of(
    bench: Bench,
    sent: dict[int, Params],
    *,
    before: Params,
    sizes: dict[int, int] | None = None,
    after: Params | None = None,
    round_number: int = 1,
    run: int = 0,
) -> _SignalContext:
    """The context of the aggregate of a round in which these clients sent these models."""
    sizes = sizes or dict.fromkeys(sent, 1)
    weighted = bench.scenario.strategy.weighting == "size" if sent else True  # type: ignore[attr-defined]
    if after is None:
        weights = [float(sizes[k]) if weighted else 1.0 for k in sent]
        after = mean_of(list(sent.values()), weights) if sent else before
    local = [
        bench.transition(model, sent=model, before=before, level="local", client=client, num_examples=sizes[client],
                         round_number=round_number, run=run)
        for client, model in sent.items()
    ]  # fmt: skip
    whole = bench.transition(after, before=before, clients=tuple(sent), round_number=round_number, run=run)
    context = _SignalContext(
        [whole], bench.scenario, bench.federation, bench._executor, bench.reader._network, lambda: None,  # type: ignore[arg-type,return-value]
        bench.federation.test,
    )  # fmt: skip
    context.know_models(local, {})
    return context


def utility(bench: Bench, model: Params) -> FloatArray:
    """(2, n) correctness and minus the loss on the test set, by a plain forward pass."""
    test: Any = bench.federation.test
    network = bench.reader._network
    doubled = {name: value.double() for name, value in model.items()}
    logits = functional_call(network, doubled, (torch.from_numpy(test.inputs).double(),)).detach()
    targets = torch.from_numpy(test.targets)
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return np.stack([(logits.argmax(1) == targets).double().numpy(), -loss.numpy()])
