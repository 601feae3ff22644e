"""Contract of networks that draw new inputs, such as a variational autoencoder or a diffusion model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Generator, Tensor


@runtime_checkable
class SamplingNetwork(Protocol):
    """A network that draws inputs from its own distribution, with the weights that it has at the time.

    Networks of texts need no such method: they are sampled token by token, see `fedmem.training.sampling`.

    Guarantees that an implementation gives:

    - all draws come from `generator`, and their number and order do not depend on the weights. So two models with one
      seed use the same noise, and their samples differ by their weights alone;
    - the first samples of a larger count need not be those of a smaller one;
    - the weights and the mode of the network stay as they are.
    """

    def sample(self, count: int, generator: Generator) -> Tensor:
        """(count, *shape) new inputs in the form in which the data set has them, such as numbers in [0, 1]."""
        ...
