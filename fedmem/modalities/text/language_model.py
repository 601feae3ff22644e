"""Language models token by token: what a search is given instead of a network and its weights."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from fedmem.contracts.model import StepwiseNetwork, trained_parameters
from fedmem.contracts.training_mode import running_statistics

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedmem.contracts.arrays import Params

State = tuple["Tensor", ...]
"""The state of a model after b texts; every tensor has b as its leading axis."""


@runtime_checkable
class CausalModel(Protocol):
    """Reads b texts at once, one token of each at a time, and says what may come next.

    Guarantees:

    - the logits after a token depend on it and those before it alone;
    - a state that was handed out is never written to, so that a text may go on in several ways from it.
    """

    def start(self, batch: int) -> State:
        """The state of `batch` texts without any token."""
        ...

    def advance(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """The logits (b, V) of what comes after one more token of each text, `tokens` (b,) int64, and the state."""
        ...

    def select(self, state: State, rows: Tensor) -> State:
        """The state of these texts, `rows` (any number,) int64, in this order; one may come several times."""
        ...


class _Module:
    """A network with weights of its own in it."""

    def __init__(self, module: nn.Module, params: Params) -> None:
        import torch

        # modules are shared, and their weights stay as they are; what is frozen is not copied
        named = (*module.named_parameters(), *module.named_buffers())
        shared = [value for name, value in named if name not in params and not value.requires_grad]
        memo = {id(value): value for value in shared if value.device.type == "cpu"}
        model_copy: Any = deepcopy(module, memo).cpu().eval()
        with torch.no_grad():
            for name, value in (*trained_parameters(model_copy).items(), *running_statistics(model_copy).items()):
                if name in params:
                    value.copy_(params[name])
        self._module = model_copy

    def select(self, state: State, rows: Tensor) -> State:
        """See `CausalModel.select`."""
        return tuple(part.index_select(0, rows) for part in state)


class Stepping(_Module):
    """A network that has `start` and `advance` itself: a recurrent state, or a cache of keys and values."""

    def start(self, batch: int) -> State:
        """See `CausalModel.start`."""
        state: State = self._module.start(batch)
        return state

    def advance(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """See `CausalModel.advance`."""
        import torch

        with torch.no_grad():
            logits_and_state: tuple[Tensor, State] = self._module.advance(state, tokens)
        return logits_and_state


class Replaying(_Module):
    """Any causal network from texts (n, l) to logits (n, l, V): each token costs a pass over all before it."""

    def start(self, batch: int) -> State:
        """See `CausalModel.start`."""
        import torch

        return (torch.empty(batch, 0, dtype=torch.int64),)

    def advance(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """See `CausalModel.advance`."""
        import torch

        texts = torch.cat((state[0], tokens[:, None]), dim=1)
        with torch.no_grad():
            logits: Tensor = self._module(texts)
        return logits[:, -1], (texts,)


def causal(module: nn.Module, params: Params) -> CausalModel:
    """A network with these weights, step by step if it can."""
    steps = isinstance(module, StepwiseNetwork)
    return Stepping(module, params) if steps else Replaying(module, params)


def read_prefix(model: CausalModel, tokens: Sequence[int]) -> tuple[Tensor, State]:
    """The logits (1, V) after a text of at least one token, and its state."""
    import torch

    state = model.start(1)
    for token in tokens:
        logits, state = model.advance(state, torch.tensor([token]))
    return logits, state
