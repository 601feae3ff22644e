"""Nine ways in which a private mechanism can be broken while its guarantee is printed unchanged.

Each is put into the product where the mechanism lives, for noise at the server (`strategies`) and for noise in the
steps of clients (`dp_sgd`). Scenario, accounting and permitted epsilon stay those of the healthy mechanism.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.clients.dp_sgd import DpSgd
from fedmem.strategies import _private, dp_adaptive, dp_fedavg, dp_ftrl
from fedmem.strategies._geometry import broadcast_factors, drop_non_finite, norms, updates
from fedmem.strategies._rule import weighted_mean
from fedmem.training import one_by_one, per_example

SERVERS = (dp_fedavg, dp_adaptive, dp_ftrl)
BROKEN = (
    "no_noise",
    "noise_10",
    "noise_4",
    "one_layer",
    "clip_10",
    "no_clip",
    "clip_after_mean",
    "same_noise",
    "fixed_batches",
)
"""All of them; `one_layer` leaves out the largest array of the model, `one_layer:NAME` the array of that name."""


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Within it the private mechanisms of the product are broken; `healthy` changes nothing."""
    with pytest.MonkeyPatch.context() as patch:
        kind, _, layer = name.partition(":")
        if kind in _NOISE:
            factor = _NOISE[kind]
            _scale_noise(patch, lambda sizes: dict.fromkeys(sizes, factor))
        elif kind == "one_layer":
            _scale_noise(
                patch, lambda sizes: {one: float(one != (layer or max(sizes, key=sizes.__getitem__))) for one in sizes}
            )
        elif kind in _CLIP:
            _stretch_clip(patch, _CLIP[kind])
        elif kind == "clip_after_mean":
            _clip_after_mean(patch)
        elif kind == "same_noise":
            _same_noise(patch)
        elif kind == "fixed_batches":
            own = DpSgd.batches

            def batches(self: DpSgd, num_examples: int, rng: np.random.Generator) -> Any:
                drawn = own(self, num_examples, np.random.default_rng(0))
                return np.tile(drawn[:1], (len(drawn), 1))

            patch.setattr(DpSgd, "batches", batches)
        else:
            assert kind == "healthy", name
        yield


_NOISE = {"no_noise": 0.0, "noise_10": 0.1, "noise_4": 0.25}
_CLIP = {"clip_10": 10.0, "no_clip": 1e9}


def _scale_noise(patch: pytest.MonkeyPatch, factors: Callable[[Mapping[str, int]], Mapping[str, float]]) -> None:
    """Each array's noise times its factor."""
    healthy, drawn_by = per_example.add_noise, _private.noise_like

    def noisy(total: Any, noise: Any, how: Any) -> Any:
        sizes = {name: value.numel() for name, value in total.items()}
        scales = factors(sizes)
        return healthy(total, noise * torch.cat([torch.full((n,), scales[name]) for name, n in sizes.items()]), how)

    def noise_like(total: Any, rnd: Any) -> Any:
        drawn = drawn_by(total, rnd)
        weights = {name: value[0].numel() for name, value in drawn.items() if name}
        # the levels of a tree are named in front of the arrays; the bits of adaptive clipping have no name
        sizes = {name.rpartition(":")[2]: size for name, size in weights.items()}
        scales = factors(sizes)
        return {name: value * scales.get(name.rpartition(":")[2], 1.0) for name, value in drawn.items()}

    for module in (per_example, one_by_one):
        patch.setattr(module, "add_noise", noisy)
    for module in SERVERS:
        patch.setattr(module, "noise_like", noise_like)


def _stretch_clip(patch: pytest.MonkeyPatch, times: float) -> None:
    """Contributions are shortened to `times` the clip, while the noise stays that of the clip."""
    healthy, stacked, start = _private.clipped_sum, per_example._factors, per_example.ClippedSums.__init__

    def clipped_sum(rnd: Any, clip: Any, weights: Any) -> Any:
        return healthy(rnd, times * clip, weights)

    def factors(squares: Any, mask: Any, clip: float) -> Any:
        return stacked(squares, mask, times * clip)

    def init(self: Any, model: Any, how: Any, *precision: str) -> None:
        start(self, model, replace(how, clip=times * how.clip), *precision)

    patch.setattr(per_example, "_factors", factors)
    patch.setattr(per_example.ClippedSums, "__init__", init)
    for module in SERVERS:
        patch.setattr(module, "clipped_sum", clipped_sum)


def _clip_after_mean(patch: pytest.MonkeyPatch) -> None:
    """The mean of what is contributed is shortened, and not each contribution."""
    stacked, single = per_example.clipped_sums, per_example.ClippedSums.__call__

    def clipped_sum(rnd: Any, clip: Any, weights: Any) -> Any:
        rnd = drop_non_finite(rnd)
        vectors = updates(rnd)
        lengths = norms(vectors)
        total = weighted_mean(vectors, torch.where(rnd.present, weights, torch.zeros_like(weights)))
        count = rnd.present.sum(dim=1).clamp(min=1).double()
        length = norms({name: value[:, None] for name, value in total.items()})[:, 0] / count
        factor = (clip / length).clamp(max=1)
        return {name: value * broadcast_factors(factor, value) for name, value in total.items()}, lengths, rnd

    def shortened(total: Any, count: Any, clip: float) -> Any:
        length = torch.stack([value.double().square().sum() for value in total.values()]).sum().sqrt() / count
        factor = (clip / length.clamp(min=1e-12)).clamp(max=1)
        return {name: (value * factor).to(value.dtype) for name, value in total.items()}

    def sums(outputs: Any, layers: Any, params: Any, inputs: Any, targets: Any, mask: Any, clip: float) -> Any:
        losses, shares, total = stacked(outputs, layers, params, inputs, targets, mask, 1e9)
        own = [
            shortened({name: value[i] for name, value in total.items()}, mask[i].sum().clamp(min=1), clip)
            for i in range(len(mask))
        ]
        return losses, shares, {name: torch.stack([one[name] for one in own]) for name in total}

    def call(self: Any, params: Any, inputs: Any, targets: Any) -> Any:
        clip, self._clip = self._clip, 1e9
        optimizer = getattr(self, "_optimizer", None)
        if optimizer is not None:
            optimizer.max_grad_norm = 1e9
        losses, shares, total = single(self, params, inputs, targets)
        self._clip = clip
        return losses, shares, shortened(total, max(1, len(inputs)), clip)

    patch.setattr(per_example, "clipped_sums", sums)
    patch.setattr(per_example.ClippedSums, "__call__", call)
    for module in SERVERS:
        patch.setattr(module, "clipped_sum", clipped_sum)


def _same_noise(patch: pytest.MonkeyPatch) -> None:
    """Every round draws from the same place again."""
    own, drawn_by = per_example.Noise.of, _private.noise_like

    def of(self: Any, run: int, rnd: int, client: int, size: int) -> Any:
        return own(self, run, 0, client, size)

    def noise_like(total: Any, rnd: Any) -> Any:
        count = len(rnd.present)
        same = replace(rnd, generators=lambda: tuple(np.random.default_rng([7, run]) for run in range(count)))
        return drawn_by(total, same)

    patch.setattr(per_example.Noise, "of", of)
    for module in SERVERS:
        patch.setattr(module, "noise_like", noise_like)
