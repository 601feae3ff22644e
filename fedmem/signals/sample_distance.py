"""Distance of an example from the nearest of the samples that a generative model draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.data import Examples
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.signals._observed_rounds import ObservedRounds

if TYPE_CHECKING:
    from fedmem.modalities.modality import Modality

NEIGHBOURS = 50
"""Training rows whose mean distance from an example is the scale of its neighbourhood."""

MAX_ROWS = 5000
"""The most base rows among which neighbours are searched. Of more, this many are drawn."""


@dataclass(frozen=True, kw_only=True)
class SampleDistance(ObservedRounds):
    """d(x) = min over G samples g of the model of the distance of x and g: small where the model copies x.

    Distances are root mean squared differences of values in [0, 1] for images, tables and `pixels`. For texts they are
    1 − similarity, with the similarity of `fedmem.modalities.texts`.

    - `sample_distance`: d(x). Out runs say how near samples come to x without training on x. So in − out needs no
      threshold and no test set.
    - `sample_ratio`: d(x) / (½ m(x)), where m(x) is the mean distance of x from the 50 nearest base rows of all
      clients. It is the distance of Carlini et al. (2023), who count an image as extracted if it is small.
    - `eidetic`: 1 if the ratio is below `delta`, else 0. The mean over runs with the example is the share that is
      extracted. That over runs without it is the rate of false positives. With `copies` k, a kind tells what is
      extracted of examples that are there k times.

    All models draw G samples with the same noise, from one stream for all runs, rounds and places. Without copying,
    in − out is still 0 on average, since coins are drawn independently of the noise. The smallest of more distances is
    smaller, so values with different G cannot be compared.

    An exact duplicate of x among base rows counts as a neighbour. The ratio is NaN where the 50 nearest rows equal x,
    and without base rows. All values are NaN where a sample is not finite or has no token, since the model has then
    diverged.

    Fields

    - `samples`: G.
    - `delta`: the ratio below which an example counts as extracted.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> SampleDistance(samples=50).model_rows
    50

    References: Chen, Yu, Zhang and Fritz (2020), GAN-Leaks, for the nearest sample. Carlini et al. (2023), Extracting
    training data from diffusion models, for the ratio. Ippolito et al. (2023) and Carlini et al. (2023) for k-eidetic.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        *signal_measures(
            Measure(
                name="sample_distance",
                title="distance from the nearest sample",
                means="The distance of the example from the nearest sample of the model.",
                is_not="It is small for typical examples, whether or not anybody trained on them.",
                range=(0.0, math.inf),
                trained_on="lower",
            )
        ),
        *signal_measures(
            Measure(
                name="sample_ratio",
                title="distance from the nearest sample, by half that from training rows",
                means="The distance from the nearest sample over half the mean distance from the 50 nearest base rows.",
                is_not="A small ratio shows no copying where runs without the example have it as well.",
                range=(0.0, math.inf),
                trained_on="lower",
            )
        ),
        *signal_measures(
            Measure(
                name="eidetic",
                title="extracted by samples (eidetic)",
                means="The share of examples whose ratio is below the threshold delta.",
                is_not="Runs without the example have it as well: their share is the rate of false positives.",
                unit="share",
                range=(0.0, 1.0),
                trained_on="higher",
            )
        ),
    )
    passes: ClassVar[float] = 0.0
    texts: ClassVar[bool] = True
    draws_samples: ClassVar[bool] = True
    densities: ClassVar[bool] = True

    samples: Annotated[int, Gt(0)] = 200
    delta: Annotated[float, Gt(0)] = 1.0

    @property
    def model_rows(self) -> int:
        """Each sample costs about a pass."""
        return self.samples

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        import torch

        from fedmem.training.sampling import draw_samples

        federation, modality = context.federation, context.federation.modality
        examples = modality.comparison_rows(context.examples.inputs, context.examples.targets)
        seed = int(context.stream("samples").integers(2**62))
        distances = np.stack(
            [
                nearest(
                    draw_samples(
                        context.network,
                        context.params(position),
                        modality,
                        federation.test if len(federation.test) else federation.population,
                        self.samples,
                        torch.Generator().manual_seed(seed),
                    ),
                    examples,
                    modality,
                )
                for position in range(len(context.transitions))
            ]
        )
        half = 0.5 * neighbourhood(examples, self._base_rows(context), modality)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(half > 0, distances / half, np.nan)
        eidetic = np.where(np.isnan(ratio), np.nan, ratio < self.delta)
        return {"sample_distance": distances, "sample_ratio": ratio, "eidetic": eidetic}

    def _base_rows(self, context: SignalContext) -> NDArray[Any]:
        """The base rows of all clients, or `MAX_ROWS` of them, in the form in which they are compared."""
        federation = context.federation
        rows = np.concatenate(list(federation.base))
        if len(rows) > MAX_ROWS:
            rows = rows[np.sort(context.stream("neighbours").permutation(len(rows))[:MAX_ROWS])]
        base: Examples = federation.store.take(rows)
        return federation.modality.comparison_rows(base.inputs, base.targets)


def nearest(samples: NDArray[Any], examples: NDArray[Any], modality: Modality) -> FloatArray:
    """(n,) the distance of each of n examples from the nearest of G samples.

    All are NaN without samples, and where one of them is not finite or has a place without token.

    >>> from fedmem.modalities.images import Images
    >>> nearest(np.array([[[0.0, 0.0]], [[1.0, 1.0]]]), np.array([[[1.0, 0.5]]]), Images()).round(3).tolist()
    [0.354]
    """
    is_broken = (samples < 0).any() if modality.tokens else not np.isfinite(samples).all()
    if not len(samples) or is_broken:
        return np.full(len(examples), np.nan)
    return np.asarray(modality.distances(samples, examples).min(axis=0))


def neighbourhood(
    examples: NDArray[Any], rows: NDArray[Any], modality: Modality, count: int = NEIGHBOURS
) -> FloatArray:
    """(n,) the mean distance of each example from the `count` nearest of these rows, or from all of fewer.

    NaN without rows.

    >>> from fedmem.modalities.images import Images
    >>> neighbourhood(np.array([[[0.0]]]), np.array([[[0.2]], [[0.4]], [[1.0]]]), Images(), 2).round(3).tolist()
    [0.3]
    """
    if not len(rows):
        return np.full(len(examples), np.nan)
    return np.asarray(np.sort(modality.distances(rows, examples), axis=0)[:count].mean(axis=0))
