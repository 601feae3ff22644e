"""The networks of the workloads, in torch alone, so that peers can import them without fedmem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Perceptron(nn.Module):
    """One hidden layer: W1 and W4. Parameters are named as in `fedmem.models.mlp`."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(features, hidden)
        self.output = nn.Linear(hidden, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, classes) logits."""
        outputs: Tensor = self.output(F.relu(self.hidden1(inputs.flatten(1))))
        return outputs


class Convolutions(nn.Module):
    """Two 3×3 convolutions without padding, a 2×2 maximum and two linear layers: W2."""

    def __init__(self, side: int, channels: tuple[int, int], hidden: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels[0], 3)
        self.conv2 = nn.Conv2d(channels[0], channels[1], 3)
        self.hidden1 = nn.Linear(channels[1] * ((side - 4) // 2) ** 2, hidden)
        self.output = nn.Linear(hidden, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, classes) logits."""
        pooled = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(inputs)))), 2)
        outputs: Tensor = self.output(F.relu(self.hidden1(pooled.flatten(1))))
        return outputs


class Leaky(nn.Module):
    """Three 5×5 convolutions with sigmoids and one linear layer, as in work on gradients that leak."""

    def __init__(self, side: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(channels, channels, 5, stride=2, padding=2)
        self.conv3 = nn.Conv2d(channels, channels, 5, padding=2)
        self.output = nn.Linear(channels * (-(-side // 4)) ** 2, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, classes) logits."""
        hidden = torch.sigmoid(self.conv2(torch.sigmoid(self.conv1(inputs))))
        outputs: Tensor = self.output(torch.sigmoid(self.conv3(hidden)).flatten(1))
        return outputs


class Characters(nn.Module):
    """An embedding, one LSTM and a linear head over the next character: W3, `char_rnn` with classes second."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.recurrent = nn.LSTM(embedding, hidden, batch_first=True)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, vocabulary, length) logits, as `cross_entropy` takes them for targets (n, length)."""
        states, _ = self.recurrent(self.embedding(inputs.long()))
        outputs: Tensor = self.output(states).transpose(1, 2)
        return outputs


def build(network: Mapping[str, Any]) -> nn.Module:
    """The network that a plan describes, such as `{"kind": "mlp", "features": 64, "hidden": 64, "classes": 10}`."""
    sizes = dict(network)
    kinds = {"mlp": Perceptron, "cnn": Convolutions, "lenet": Leaky, "lm": Characters}
    module: nn.Module = kinds[sizes.pop("kind")](**sizes)
    return module


def loss_of(network: Mapping[str, Any], params: Mapping[str, Any], inputs: Any, targets: Any) -> float:
    """Mean cross entropy of a model on these rows (arrays), in nats."""
    module = build(network)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in params.items()})
    with torch.no_grad():
        losses = [
            F.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y), reduction="sum")
            for x, y in zip(_pieces(inputs), _pieces(targets), strict=True)
        ]
    return float(torch.stack(losses).sum()) / int(targets.size)


def _pieces(array: Any, size: int = 500) -> list[Any]:
    return [array[start : start + size] for start in range(0, len(array), size)]
