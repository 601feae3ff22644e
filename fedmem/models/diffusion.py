"""Denoising diffusion: a variational bound on the log-density of images, and samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import annotated_types

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """T steps add normal noise to an image, and a perceptron with a time embedding guesses the original image.

    Pixels are x_0 = 2 x − 1, and x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε. With the guess x̂_0 of x_0 from x_t, the noise is
    guessed as ε̂ = (x_t − √ᾱ_t x̂_0) / √(1 − ᾱ_t). In training the output (n, 1) is −½ ‖ε − ε̂‖² at random times with
    new noise, which is no log-density. In evaluation it estimates a bound, in nats for the whole image:

    log p(x) ≥ −KL(q(x_T | x_0) ‖ N(0, I)) − Σ_{t=2..T} KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)) + log p(x | x_1),

    each term in expectation over the noise of x_t. Reverse steps have fixed variances. These and the decoder p(x | x_1)
    depend on `likelihood`:

    - `bernoulli`, for binary pixels: the network gives half the log-odds h of each pixel, to which Bayes' rule adds
      √ᾱ_t x_t / (1 − ᾱ_t). Then x̂_0 = tanh of the sum, and p(pixel is 1 | x_1) = sigmoid of twice the sum. With
      constant h, pixels are independent. Steps have the variance β̃_t of q, and cost ½ (SNR_{t−1} − SNR_t)
      ‖x_0 − x̂_0‖² nats, where SNR_t = ᾱ_t / (1 − ᾱ_t).
    - `gaussian`: the network gives v, and x̂_0 = √ᾱ_t x_t − √(1 − ᾱ_t) v. The decoder is N(x̂_0, 1 − ᾱ_1), as a
      density of pixels in [0, 1]. Steps have the variance β_t = 1 − ᾱ_t / ᾱ_{t−1}. With v = 0 the bound is exact for
      standard normal x_0.

    Fields

    - `hidden`: width of each hidden layer of the perceptron.
    - `steps`: T.
    - `schedule`: how ᾱ_t falls with t, `linear` (Ho et al.) or `cosine` (Nichol and Dhariwal).
    - `likelihood`: the distribution of pixels given x_1.
    - `samples`: K, pairs of a time and a noise vector in evaluation. Times are spread evenly over 1..T from a random
      start, so that K = T has each time once. For any K, the mean of the estimate is the bound.
    - `draws`: pairs of a time and a noise vector for each image in a step of training.
    - `activation`: what follows each hidden layer.

    Guarantees:

    - pairs in evaluation follow from the pixels of an image alone. They are the same under all models, in all runs,
      seeds and scenarios;
    - noise of training is drawn as dropout is, so that clients are trained one by one, and replays repeat their draws.

    >>> [name for name, _ in Diffusion(hidden=(8,)).build((1, 4, 4), 1).named_parameters()][:2]
    ['denoiser.layers.hidden1.weight', 'denoiser.layers.hidden1.bias']

    References: Ho, Jain and Abbeel (2020), Denoising diffusion probabilistic models. Nichol and Dhariwal (2021),
    Improved denoising diffusion probabilistic models. Kingma et al. (2021), Variational diffusion models.
    """

    stackable: ClassVar[bool] = False
    densities: ClassVar[bool] = True

    hidden: tuple[Annotated[int, annotated_types.Ge(1)], ...] = (64,)
    steps: Annotated[int, annotated_types.Ge(2), annotated_types.Le(1000)] = 100
    schedule: Literal["linear", "cosine"] = "cosine"
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    samples: Annotated[int, annotated_types.Ge(1), annotated_types.Le(1024)] = 100
    draws: Annotated[int, annotated_types.Ge(1)] = 1
    activation: Literal["relu", "tanh", "sigmoid"] = "tanh"

    @property
    def binary_inputs(self) -> bool:
        """Whether the likelihood is that of binary pixels."""
        return self.likelihood == "bernoulli"

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A freshly initialised network, by torch's own rule and from torch's own generator."""
        from fedmem.models._denoising import NUM_FREQUENCIES, Denoiser, DiffusionNetwork
        from fedmem.models.mlp import MLP

        size = math.prod(input_shape)
        layers = MLP(hidden=self.hidden, activation=self.activation).build((size + 2 * NUM_FREQUENCIES,), size)
        return DiffusionNetwork(
            denoiser=Denoiser(layers, self.steps),
            shape=tuple(input_shape),
            steps=self.steps,
            schedule=self.schedule,
            samples=self.samples,
            draws=self.draws,
            binary=self.binary_inputs,
        )
