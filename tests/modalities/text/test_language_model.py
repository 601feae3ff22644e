"""Tests of `fedmem/modalities/text/language_model.py`."""

from __future__ import annotations

import numpy as np
import torch

from fedmem.contracts.arrays import Params
from fedmem.modalities.text.language_model import CausalModel, Replaying, Stepping, causal, read_prefix
from fedmem.modalities.text.prefix_tree import scores
from tests.language import Recurrent, digits


def test_networks_step_by_step_say_what_they_say_of_whole_texts() -> None:
    network = Recurrent(seed=3)
    params: Params = dict(network.named_parameters())
    stepping, replaying = causal(network, params), Replaying(network, params)
    assert isinstance(stepping, Stepping)
    assert isinstance(stepping, CausalModel)
    assert isinstance(replaying, CausalModel)
    text = [1, 4, 0, 2, 2]
    logits = network(torch.tensor([text])).detach()
    for place in range(1, len(text) + 1):
        for model in (stepping, replaying):
            np.testing.assert_allclose(read_prefix(model, text[:place])[0], logits[:, place - 1], atol=1e-5)


def test_weights_are_copied_and_the_network_stays_as_it_was() -> None:
    network = Recurrent(seed=1)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    zeros = {name: torch.zeros_like(value) for name, value in before.items()}
    even = scores(causal(network, zeros), digits(2)).loss
    assert even.tolist() == [even[0]] * 25
    assert all(torch.equal(before[name], value) for name, value in network.named_parameters())
