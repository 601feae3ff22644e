"""Networks with frozen and trained parts, and what a trial finds of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fedmem.contracts.arrays import Params
from fedmem.contracts.model import trained_parameters
from fedmem.contracts.training_mode import TrainingMode, running_statistics
from fedmem.training.frozen_prefix import FrozenPrefix
from fedmem.training.prefix_trials import find_prefix

WIDTH, CLASSES = 8, 3


def linear(out: int = WIDTH, *, trained: bool = False) -> nn.Linear:
    layer = nn.Linear(WIDTH, out)
    return layer.requires_grad_(trained)


def head() -> nn.Linear:
    return linear(CLASSES, trained=True)


class Adapted(nn.Module):
    """A frozen layer with an adapter, whose second factor is zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.base = linear()
        self.a, self.b = nn.Parameter(torch.randn(2, WIDTH)), nn.Parameter(torch.zeros(WIDTH, 2))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x) + x @ self.a.T @ self.b.T
        return y


class Cut(nn.Module):
    """A trained layer through which no gradient flows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear(trained=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x).detach()
        return y


class Silent(nn.Module):
    """A trained layer whose outputs do not change until its parameters have moved far."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear(trained=True)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x) - 1e6)


class Centred(nn.Module):
    """Mixes the rows of a batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0)


class Jitter(nn.Module):
    """An augmentation that draws from a generator of its own, in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        return x + float(self.rng.normal())


class Skip(nn.Module):
    """The first of two frozen layers is read again at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = linear(), linear(), head()

    def forward(self, x: Tensor) -> Tensor:
        early = self.one(x)
        y: Tensor = self.head(self.two(early) + early)
        return y


class Twice(nn.Module):
    """A frozen layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = linear(), head()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.layer(self.layer(x)))
        return y


class Sideways(nn.Module):
    """Rows are the second axis of the frozen output."""

    def forward(self, x: Tensor) -> Tensor:
        return x.T


class Turned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.turn, self.head = linear(), Sideways(), head()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.turn(self.one(x)).T)
        return y


class InPlace(nn.Module):
    """Writes into the output of a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.head = linear(), head()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.one(x).mul_(2.0))
        return y


class Routed(nn.Module):
    """A trained router that chooses among frozen experts by `argmax`, through which no gradient flows."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = linear(2, trained=True)
        self.experts, self.head = Experts(), head()

    def forward(self, x: Tensor) -> Tensor:
        top, chosen = self.gate(x).softmax(1).max(1)
        y: Tensor = self.head(self.experts(x, chosen) * top[:, None])
        return y


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(2, WIDTH, WIDTH), requires_grad=False)

    def forward(self, x: Tensor, chosen: Tensor) -> Tensor:
        return torch.einsum("ni,nij->nj", x, self.weights[chosen])


class IsRare(nn.Module):
    """Whether any row has a value that the rows of the trial have not."""

    def forward(self, x: Tensor) -> bool:
        return bool((x > 50).any())


class RareFlag(nn.Module):
    """A product that is skipped where it would change no row."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.rare, self.head = linear(), IsRare(), head()

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y = torch.where(x[:, :1] > 50, -y, y) if self.rare(x) else y
        z: Tensor = self.head(y)
        return z


class RareUse(nn.Module):
    """The first frozen layer is read by a comparison, which is false for all rows of the trial and for NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = linear(), linear(), head()
        with torch.no_grad():
            self.one.weight[0] = torch.eye(WIDTH)[0]

    def forward(self, x: Tensor) -> Tensor:
        early = self.one(x)
        y = self.two(early)
        z: Tensor = self.head(torch.where(early[:, :1] > 50, -y, y))
        return z


class Noting(nn.Module):
    """Notes on itself what another layer reads."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()

    def forward(self, x: Tensor) -> Tensor:
        self.rare = bool((x > 50).any())
        y: Tensor = self.layer(x)
        return y


class RareNote(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = Noting(), head()

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        z: Tensor = self.head(torch.where(x[:, :1] > 50, -y, y) if self.body.rare else y)
        return z


class Capped(nn.Module):
    """Drops the rows of a batch beyond the twentieth, like experts that are full."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:20], 0 * x[20:]])


def inputs(count: int = 9, seed: int = 0) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def initial(model: nn.Module, mode: TrainingMode) -> Params:
    trained = {name: value.detach().clone() for name, value in trained_parameters(model).items()}
    return trained | {n: v.clone() for n, v in running_statistics(model).items() if n in mode.statistics}


def found(model: nn.Module, mode: TrainingMode | None = None) -> FrozenPrefix | None:
    mode = mode or TrainingMode()
    return find_prefix(model, initial(model, mode), inputs(), mode)
