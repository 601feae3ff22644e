"""Robustness to noise: how often a model stays right, and how often its loss grows, when noise is added to an input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt, MinLen

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.modalities.scores import answers
from fedmem.signals._observed_rounds import ObservedRounds


@dataclass(frozen=True, kw_only=True)
class NoiseRobustness(ObservedRounds):
    """Shares of noisy copies of an input, x + σε with standard normal ε, 0 to 1, over all σ and draws.

    - `noise_robustness`: copies that the model gets right. It needs no probabilities, only answers;
    - `loss_growth`: copies with a larger loss than the example itself, equal ones counted half. Memorised examples lie
      in a dent of the loss.

    Noise is the same for all models and rounds, drawn from the seed, and not cut to the range of the inputs. Robustness
    is difficulty first: what matters is the gain over runs without the example.

    Fields

    - `sigmas`: standard deviations of the noise.
    - `draws`: noisy copies at each of them.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> NoiseRobustness(sigmas=(0.1,), draws=5).passes
    5.0

    Reference: Jayaraman, Wang, Knipmeyer, Gu and Evans (2021), Revisiting membership inference under realistic
    assumptions; Choquette-Choo, Tramer, Carlini and Papernot (2021), Label-only membership inference attacks.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        *signal_measures(
            Measure(
                name="noise_robustness",
                title="robustness to noise",
                means="Share of noisy copies of the example that the model gets right.",
                is_not="It is high for easy examples, trained on or not.",
                unit="share",
                range=(0.0, 1.0),
                trained_on="higher",
            )
        ),
        *signal_measures(
            Measure(
                name="loss_growth",
                title="loss growth under noise",
                means="Share of noisy copies of the example with a larger loss than the example itself.",
                is_not="It is high wherever the label fits, trained on or not.",
                unit="share",
                range=(0.0, 1.0),
                trained_on="higher",
            )
        ),
    )
    texts: ClassVar[bool] = False

    sigmas: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = (0.01, 0.03, 0.1, 0.3)
    draws: Annotated[int, Gt(0)] = 5

    @property
    def passes(self) -> float:
        """One for each noisy copy."""
        return float(len(self.sigmas) * self.draws)

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        examples, rng = context.examples, context.stream("noise")
        margin, _ = answers(context.logits(), examples.targets)
        right, grown = np.zeros(margin.shape), np.zeros(margin.shape)
        for sigma in self.sigmas:
            for _ in range(self.draws):
                noisy = examples.inputs + sigma * rng.standard_normal(examples.inputs.shape)
                other, correct = answers(context.logits_of(noisy.astype(np.float32)), examples.targets)
                right += correct
                # a smaller margin is a larger loss
                grown += (other < margin) + 0.5 * (other == margin)
        count = len(self.sigmas) * self.draws
        is_unknown = np.isnan(margin)
        return {
            "noise_robustness": np.where(is_unknown, np.nan, right / count),
            "loss_growth": np.where(is_unknown, np.nan, grown / count),
        }
