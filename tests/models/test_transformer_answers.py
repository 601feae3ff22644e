"""Tests of `fedmem/models/_transformer_answers.py`; test_huggingface.py has those of logits, masks and padding."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, vmap

from fedmem.contracts.model import trained_parameters
from tests.models.huggingface_helpers import built, random_model, rows


@pytest.mark.parametrize(("kind", "classes"), [("gpt2", None), ("llama", None), ("gpt2", 3), ("bert", 3)])
def test_no_row_at_all_has_no_logits(kind: str, classes: int | None) -> None:
    network = built(random_model(kind), classes=classes)
    tokens = rows(2)
    stack = {name: torch.stack([value.detach()] * 3) for name, value in trained_parameters(network).items()}
    nothing = vmap(lambda params: functional_call(network, params, (tokens[:0],)))(stack)
    assert nothing.shape == (3, 0, *network(tokens).shape[1:])
