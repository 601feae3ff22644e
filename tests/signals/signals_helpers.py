"""Models of a tiny scenario whose signals are read, and the loops that their values are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import Level
from fedmem.federation import build as federations
from fedmem.modalities.loss import example_losses
from fedmem.observation.signals import SignalReader, _SignalContext
from fedmem.scenario.scenario import Scenario
from fedmem.training.one_by_one import OneByOne
from tests.tiny import tiny


class Bench:
    """The tiny scenario with some signals, and transitions with parameters that a test chooses."""

    def __init__(self, signals: Sequence[Mapping[str, Any]] = (), **changes: Any) -> None:
        self.changes = changes
        self.scenario: Scenario = tiny(signals=list(signals), **changes)
        self.federation = federations.build(self.scenario)
        executor = OneByOne(self.federation.model, self.scenario.client, self.federation.store)
        self.reader = SignalReader(self.scenario, self.federation, executor)
        self._executor = executor

    @property
    def examples(self) -> Any:
        return self.federation.audit.examples

    def params(self, seed: int = 0, scale: float = 1.0) -> Params:
        """Random parameters."""
        rng = torch.Generator().manual_seed(seed)
        return {
            name: scale * torch.randn(value.shape, generator=rng) for name, value in self.federation.initial.items()
        }

    def transition(
        self,
        kept: Params,
        *,
        round_number: int = 2,
        level: Level = "global",
        client: int = -1,
        run: int = 0,
        **more: Any,
    ) -> Transition:
        values = {"before": kept, "sent": kept, "kept": kept, "num_examples": 1, **more}
        return Transition(run=run, round=round_number, level=level, client=client, **values)

    def context(self, *transitions: Transition) -> _SignalContext:
        reader = self.reader
        return _SignalContext(
            transitions, self.scenario, self.federation, self._executor, reader._network, lambda: reader._gradients
        )

    def values(self, signal: Any, *models: Params) -> dict[str, FloatArray]:
        """What a signal reads at aggregates with these parameters."""
        return dict(signal.values(self.context(*(self.transition(params) for params in models))))

    def losses(self, params: Params, inputs: Tensor) -> Tensor:
        """The losses in float64."""
        doubled = {name: value.double() for name, value in params.items()}
        outputs = functional_call(self.reader._network, doubled, (inputs,))
        return example_losses(outputs, torch.from_numpy(self.examples.targets))

    def probabilities(self, params: Params) -> FloatArray:
        """(n, C) in float64, from a forward pass of the model's own precision as the context makes it."""
        logits = torch.from_numpy(self._executor.logits([params], self.examples.inputs)[0])
        return np.asarray(torch.softmax(logits, dim=1).numpy())

    def one_hot(self) -> FloatArray:
        return np.asarray(np.eye(self.federation.num_classes)[self.examples.targets])


def gradient_norms(bench: Bench, params: Params) -> FloatArray:
    """The gradient norm of each example by a loop of autograd."""
    norms = []
    for row in range(len(bench.examples)):
        leaves = {name: value.double().clone().requires_grad_() for name, value in params.items()}
        inputs = torch.from_numpy(bench.examples.inputs[row : row + 1]).double()
        outputs = functional_call(bench.reader._network, leaves, (inputs,))
        loss = example_losses(outputs, torch.from_numpy(bench.examples.targets[row : row + 1])).sum()
        parts = torch.autograd.grad(loss, list(leaves.values()))
        norms.append(float(torch.cat([part.flatten() for part in parts]).norm()))
    return np.array(norms)
