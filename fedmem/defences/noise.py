"""Gaussian noise is added to every value of an update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt

from fedmem.contracts.arrays import Params
from fedmem.contracts.defence import Draws


@dataclass(frozen=True, kw_only=True)
class Noise:
    """`u + sigma * z` with independent standard normal z and `sigma = multiplier * norm`, added by each client itself.

    After `{kind: clip, norm: S}` give the same `norm` here: `multiplier` is then that of the Gaussian mechanism, and a
    scenario where they differ is refused. Without a clip, with `norm` 1, it is the standard deviation itself.

    The mean of K updates has noise of `sigma / sqrt(K)`, so that noise that hides a single update may well leave the
    aggregate useful. Noise alone states no epsilon, which needs an account of rounds, sampling and adjacency.

    Guarantees:

    - z comes from a stream of the run, the round and the client, so that it is the same whatever else happens;
    - an update of zero becomes plain noise.

    Fields:
        multiplier: standard deviation of the noise on each value, in units of `norm`.
        norm: S of the clip before it, or 1.

    >>> import torch
    >>> Noise(multiplier=0.5).apply({"w": torch.zeros(2)}, {"w": torch.tensor([1.0, -2.0])})["w"].tolist()
    [0.5, -1.0]

    Reference: Geyer, Klein and Nabi (2017), differentially private federated learning: a client level perspective.
    """

    draws: ClassVar[Draws] = "normal"

    multiplier: Annotated[float, Gt(0)] = 0.01
    norm: Annotated[float, Gt(0)] = 1.0

    @property
    def gaussian_deviation(self) -> float:
        """sigma."""
        return self.multiplier * self.norm

    @property
    def noise_norm(self) -> float:
        """The norm of the clip before it."""
        return self.norm

    def apply(self, update: Params, drawn: Params) -> Params:
        """Add the noise."""
        sigma = self.gaussian_deviation
        return {name: value + sigma * drawn[name] for name, value in update.items()}
