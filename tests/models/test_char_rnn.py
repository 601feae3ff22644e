"""The recurrent language model: causal, the same token by token, and the gates of its cells by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.contracts.model import StepwiseNetwork
from fedmem.errors import ComponentError
from fedmem.modalities.text.language_model import causal
from fedmem.models.char_rnn import CharRnn

VOCABULARY = 11


def network(**fields: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CharRnn(**{"embedding": 4, "hidden": 6, **fields}).build((9,), VOCABULARY).double()


def texts(count: int = 3, length: int = 9, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(VOCABULARY, size=(count, length)))


every_shape = pytest.mark.parametrize("fields", [{}, {"cell": "lstm"}, {"layers": 2}, {"cell": "lstm", "layers": 3}])


@every_shape
def test_the_future_changes_nothing_before_it(fields: dict[str, Any]) -> None:
    module, rows = network(**fields), texts()
    logits = module(rows)
    assert logits.shape == (3, 9, VOCABULARY)
    for place in range(9):
        changed = rows.clone()
        changed[:, place:] = (changed[:, place:] + 1) % VOCABULARY
        other = module(changed)
        torch.testing.assert_close(other[:, :place], logits[:, :place])
        assert not torch.allclose(other[:, place:], logits[:, place:])
        torch.testing.assert_close(module(rows[:, : place + 1]), logits[:, : place + 1])


@every_shape
def test_token_by_token_is_all_at_once(fields: dict[str, Any]) -> None:
    module, rows = network(**fields), texts()
    assert isinstance(module, StepwiseNetwork)
    logits, state = module(rows), module.start(3)
    for place in range(9):
        step, after = module.advance(state, rows[:, place])
        torch.testing.assert_close(step, logits[:, place])
        again, _ = module.advance(state, rows[:, place])
        assert torch.equal(step, again), "a state that was handed out is never written to"
        state = after
    model = causal(module, dict(module.named_parameters()))
    chosen = torch.tensor([2, 0, 2])
    _, first = model.advance(model.start(3), rows[:, 0])
    step, _ = model.advance(model.select(first, chosen), rows[chosen, 1])
    torch.testing.assert_close(step, logits[chosen, 1])


def test_a_gru_is_that_of_its_paper() -> None:
    module, rows = network(), texts(1)
    params = {name: value.detach().numpy() for name, value in module.named_parameters()}
    h, expected = np.zeros(6), []
    for token in rows[0].tolist():
        x = params["embedding.weight"][token]
        inner = params["recurrent.weight_ih_l0"] @ x + params["recurrent.bias_ih_l0"]
        outer = params["recurrent.weight_hh_l0"] @ h + params["recurrent.bias_hh_l0"]
        r, z = (1 / (1 + np.exp(-(inner + outer)[part : part + 6])) for part in (0, 6))
        n = np.tanh(inner[12:] + r * outer[12:])
        h = (1 - z) * n + z * h
        expected.append(params["output.weight"] @ h + params["output.bias"])
    np.testing.assert_allclose(module(rows)[0].detach().numpy(), expected, atol=1e-12)


def test_pictures_are_no_tokens() -> None:
    with pytest.raises(ComponentError, match="inputs have shape"):
        CharRnn().build((1, 8, 8), 10)
