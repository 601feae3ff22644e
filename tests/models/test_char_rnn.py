"""The recurrent language model: causal, the same token by token, and the gates of its cells by hand."""

from typing import Any

import pytest
import torch

from fedmem.contracts.model import StepwiseNetwork
from fedmem.errors import ComponentError
from fedmem.modalities.text.language_model import causal
from fedmem.models.char_rnn import CharRnn
from tests.models.char_rnn_helpers import VOCABULARY, network, texts

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


def test_char_rnn_refuses_images() -> None:
    with pytest.raises(ComponentError, match="inputs have shape"):
        CharRnn().build((1, 8, 8), 10)
