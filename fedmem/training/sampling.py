"""Draws new examples from a trained network: of any `SamplingNetwork`, and of texts token by token."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.data import Examples
from fedmem.contracts.model import trained_parameters
from fedmem.contracts.sampling import SamplingNetwork
from fedmem.contracts.training_mode import running_statistics
from fedmem.errors import ComponentError
from fedmem.modalities.text.language_model import CausalModel, causal

if TYPE_CHECKING:
    from torch import Generator, nn

    from fedmem.modalities.modality import Modality


def require_sampling(network: nn.Module, modality: Modality, place: str) -> None:
    """Errors: `ComponentError` where a network neither predicts the next token nor has `sample(count, generator)`."""
    if not modality.tokens and not isinstance(network, SamplingNetwork):
        raise ComponentError(
            place,
            f"{place} draws samples, but {type(network).__name__} is no generative model; use a data set of texts or "
            "pixels, or a network with a method sample(count, generator)",
        )


def draw_samples(
    network: nn.Module, params: Params, modality: Modality, public: Examples, count: int, generator: Generator
) -> NDArray[Any]:
    """(count, ...) samples of a network with these parameters, in the form in which the modality compares examples.

    A row of tokens begins with the first token of a row of `public`, in turn; there every row of `pixels` has the same.
    The others are drawn one after the other from the whole distribution of the model.

    Guarantees:

    - all draws come from `generator`, as many for any parameters;
    - the network that is passed in is not changed.

    Errors: `ComponentError` as in `require_sampling`.
    """
    require_sampling(network, modality, "sampling")
    if modality.tokens:
        first = np.resize(public.inputs[:, 0], count)
        return draw_texts(causal(network, params), first, public.targets.shape[1], generator)
    filled: Any = deepcopy(network).cpu().eval()
    with torch.no_grad():
        for name, value in (*trained_parameters(filled).items(), *running_statistics(filled).items()):
            if name in params:
                value.copy_(params[name])
        inputs = filled.sample(count, generator).detach().cpu().double().numpy()
    return modality.comparison_rows(inputs, None)


def draw_texts(model: CausalModel, first: IntArray, length: int, generator: Generator) -> IntArray:
    """(n, length + 1) texts that begin with the tokens `first` (n,), each next token drawn by the model.

    Token t of a text is the smallest number whose cumulative probability exceeds a uniform draw. The draws do not
    depend on the model, so a small change of the model changes few tokens. A model with NaN draws token -1 from there
    on.

    >>> class Counts:
    ...     def start(self, batch): return (torch.zeros(batch),)
    ...     def advance(self, state, tokens): return 99.0 * torch.eye(5)[(tokens + 1) % 5], state
    ...     def select(self, state, rows): return (state[0][rows],)
    >>> draw_texts(Counts(), np.array([2, 4]), 3, torch.Generator().manual_seed(0)).tolist()
    [[2, 3, 4, 0], [4, 0, 1, 2]]
    """
    uniform = torch.rand(len(first), length, generator=generator, dtype=torch.float64)
    texts = np.full((len(first), length + 1), -1, dtype=np.int64)
    texts[:, 0] = first
    state = model.start(len(first))
    tokens = torch.from_numpy(texts[:, 0].copy())
    broken = torch.zeros(len(first), dtype=torch.bool)
    for place in range(length):
        logits, state = model.advance(state, tokens)
        cumulative = logits.double().softmax(dim=1).cumsum(dim=1)
        broken |= cumulative.isnan().any(dim=1)
        # rounding may leave the sum below the draw, which then means the last token
        drawn = (cumulative <= uniform[:, place, None]).sum(dim=1).clamp(max=logits.shape[1] - 1)
        tokens = torch.where(broken, 0, drawn)
        texts[:, place + 1] = torch.where(broken, -1, drawn).numpy()
    return texts
