"""Tests of `fedmem/modalities/text/language_model.py`."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

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


def test_models_have_running_statistics_of_their_own() -> None:
    """Statistics are no parameters, and still belong to each model."""
    network = nn.Sequential(nn.Embedding(5, 3), nn.BatchNorm1d(4), nn.Linear(3, 5)).eval()
    network.requires_grad_(False)[0].requires_grad_(True)
    text = torch.tensor([[1, 4, 0, 2]])
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def model(mean: float) -> Params:
        return {
            "0.weight": before["0.weight"],
            "1.running_mean": torch.full((4,), mean),
            "1.running_var": torch.ones(4),
        }

    one, other = causal(network, model(2.0)), causal(network, model(-1.0))
    for made, mean in ((one, 2.0), (other, -1.0)):
        expected = torch.func.functional_call(network, model(mean), (text,))
        assert isinstance(made, Replaying)
        torch.testing.assert_close(made._module(text), expected)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert isinstance(one, Replaying)
    assert one._module.get_submodule("2").weight is network[2].weight, "what is frozen is shared"
