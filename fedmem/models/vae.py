"""A variational autoencoder: log-densities of images by importance sampling, and samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import annotated_types

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Vae:
    """Latent z ~ N(0, I), a decoder p(x | z) and an encoder q(z | x) = N(μ(x), diag σ²(x)), both perceptrons.

    In training the output (n, 1) is a draw of the evidence lower bound in nats: log p(x | z) − KL(q(z | x) ‖ N(0, I)).
    Here z = μ + σ ε, with a new ε at each step. In evaluation it is an estimate of log p(x) from K values of ε that all
    models share. With w_k = p(x | z_k) p(z_k) / q(z_k | x), `iwae` is log mean_k w_k and `elbo` is mean_k log w_k. Both
    are below log p(x) in expectation. The gap of `elbo` is KL(q ‖ p(z | x)), which changes with training. `iwae` is
    never below `elbo`, and its gap vanishes as K grows.

    Fields

    - `hidden`: width of each hidden layer of the decoder; the encoder has them in the other order. Empty for both
      linear: with `gaussian` that is probabilistic PCA.
    - `latent`: dimensions of z.
    - `likelihood`: `bernoulli` for binary pixels; `gaussian` with a standard deviation that is learnt, common to all.
    - `samples`: K.
    - `bound`: the estimate in evaluation.
    - `activation`: what follows each hidden layer.

    Guarantees:

    - ε of evaluation is a buffer from a stream of its own, the same in all models, runs, seeds and scenarios;
    - ε of training is drawn as dropout is, so that clients are trained one by one, and replays repeat their draws.

    >>> [name for name, _ in Vae(hidden=(8,), latent=2).build((1, 4, 4), 1).named_parameters()][:4]
    ['encoder.hidden1.weight', 'encoder.hidden1.bias', 'encoder.output.weight', 'encoder.output.bias']

    References: Kingma and Welling (2014), Auto-encoding variational Bayes; Burda, Grosse and Salakhutdinov (2016),
    Importance weighted autoencoders; Tipping and Bishop (1999), Probabilistic principal component analysis.
    """

    stackable: ClassVar[bool] = False
    densities: ClassVar[bool] = True

    hidden: tuple[Annotated[int, annotated_types.Ge(1)], ...] = (64,)
    latent: Annotated[int, annotated_types.Ge(1)] = 16
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    samples: Annotated[int, annotated_types.Ge(1), annotated_types.Le(1024)] = 64
    bound: Literal["iwae", "elbo"] = "iwae"
    activation: Literal["relu", "tanh", "sigmoid"] = "tanh"

    @property
    def binary_inputs(self) -> bool:
        """Whether the likelihood is that of binary pixels."""
        return self.likelihood == "bernoulli"

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A freshly initialised network, by torch's own rule and from torch's own generator."""
        from fedmem.models._densities import VaeNetwork
        from fedmem.models.mlp import MLP

        size = math.prod(input_shape)
        return VaeNetwork(
            encoder=MLP(hidden=self.hidden[::-1], activation=self.activation).build((size,), 2 * self.latent),
            decoder=MLP(hidden=self.hidden, activation=self.activation).build((self.latent,), size),
            shape=tuple(input_shape),
            latent=self.latent,
            samples=self.samples,
            gaussian=self.likelihood == "gaussian",
            mean_of_logs=self.bound == "elbo",
        )
