"""Weights are copied by name, all of them or none, and what stays fresh was declared."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fedmem.errors import ComponentError
from fedmem.weights.matching import Loaded, load_weights


def net(classes: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, classes))


def state(seed: int = 1, classes: int = 2) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {name: value.clone() for name, value in net(classes).state_dict().items()}


def test_all_tensors_of_a_state_are_taken_over() -> None:
    network, weights = net(), state()
    weights["1.running_mean"] += 3
    weights["1.num_batches_tracked"] += 7
    loaded = load_weights(network, weights, "a file")
    assert all(torch.equal(network.state_dict()[name], value) for name, value in weights.items())
    assert (loaded.tensors, loaded.numbers) == (9, sum(value.numel() for value in weights.values()))
    assert loaded.fresh == loaded.unused == ()
    assert all(value.requires_grad for value in network.parameters())


def test_a_head_of_another_size_must_be_declared() -> None:
    network = net(classes=5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ComponentError, match=r"2.weight is 2x3 there, 5x3 in the network") as caught:
        load_weights(network, state(), "a file", place="initial_weights")
    assert "except: ['2.*']" in caught.value.message
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items()), "nothing was changed"
    loaded = load_weights(network, state(), "a file", leave=["2.*"])
    assert loaded.fresh == loaded.unused == ("2.weight", "2.bias")
    assert loaded.fresh_numbers == 20
    assert torch.equal(network.state_dict()["2.weight"], before["2.weight"])
    assert torch.equal(network.state_dict()["0.weight"], state()["0.weight"])


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda weights: weights.__delitem__(name)


def changed(name: str, value: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda weights: weights.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("1.running_mean"), "it lacks 1.running_mean"),
        (changed("3.bias", torch.zeros(2)), r"the network has no 3\.bias"),
        (changed("0.bias", torch.zeros(1, 3)), r"0\.bias is 1x3 there, 3 in the network"),
        (
            changed("0.bias", torch.tensor([0.0, float("nan"), 0.0])),
            r"'0\.bias' of a file has .*not finite",
        ),
        (changed("0.bias", torch.zeros(3, dtype=torch.int8)), r"'0\.bias' of a file is int8, in the network float32"),
    ],
)
def test_what_does_not_fit_is_named(change: Callable[[dict[str, Tensor]], None], said: str) -> None:
    network, weights = net(), state()
    before = network.state_dict()["2.weight"].clone()
    change(weights)
    with pytest.raises(ComponentError, match=said):
        load_weights(network, weights, "a file")
    assert torch.equal(network.state_dict()["2.weight"], before)


def test_long_lists_of_names_are_cut() -> None:
    weights = {**state(), **{f"more.{i}": torch.zeros(1) for i in range(10)}}
    with pytest.raises(ComponentError, match=r"more\.5 and 4 more"):
        load_weights(net(), weights, "a file")


def test_patterns_match_something_and_leave_something() -> None:
    with pytest.raises(ComponentError, match="matches no name") as caught:
        load_weights(net(), state(), "a file", leave=["2.*", "head.*"])
    assert caught.value.path == "initial_weights.except[1]"
    with pytest.raises(ComponentError, match="nothing of a file would be used"):
        load_weights(net(), state(), "a file", leave=["*"])


def test_a_shared_tensor_needs_one_of_its_names() -> None:
    first = nn.Linear(3, 3, bias=False)
    network = nn.Sequential(first, nn.ReLU(), first)
    for names in (["0.weight"], ["2.weight"], ["0.weight", "2.weight"]):
        load_weights(network, {name: torch.full((3, 3), 2.0) for name in names}, "a file")
        assert bool((first.weight == 2).all())
    with pytest.raises(ComponentError, match=r"0\.weight and 2\.weight are one tensor"):
        load_weights(network, {"0.weight": torch.zeros(3, 3), "2.weight": torch.ones(3, 3)}, "a file")


def test_other_floating_types_are_rounded_to_that_of_the_network() -> None:
    network, weights = net(), state()
    weights["0.bias"] = weights["0.bias"].double()
    load_weights(network, weights, "a file")
    assert network.state_dict()["0.bias"].dtype == torch.float32


def test_a_sentence_counts_what_is_loaded_and_fresh() -> None:
    text = Loaded(tensors=1, numbers=1200, fresh=("a", "b"), fresh_numbers=3, unused=("c",)).text("x.pt")
    assert text == "1 tensor (1,200 numbers) is from x.pt; 2 are fresh (3 numbers): a, b; not used: c"
