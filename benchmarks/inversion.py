"""Gradient inversion, seconds for each victim: `python -m benchmarks.inversion WHO NETWORK --out FILE`.

All minimise one minus the cosine by Adam on the sign of the gradient, from the same starts, with the same number of
iterations and known labels, without total variation, which the peer has for three channels alone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.contender import Trained, write
from benchmarks.victims import NETWORKS, SHAPE, STEPS, Victim, decayed, generator, network_of, victims
from fedmem.modalities.images import Images

TOGETHER = 64
"""Victims that fedmem attacks at once."""

APART = 3
"""Victims that are attacked one after the other; each takes as long as any other."""


def plain(name: str) -> Trained:
    """One victim after the other, as one would write it by hand: one thread."""
    torch.set_num_threads(1)
    module = network_of(name)
    given = victims(name, module, APART)
    _invert(module, given[0], 3)
    started = time.perf_counter()
    distances = [_invert(module, one, STEPS[name]) for one in given]
    seconds = (time.perf_counter() - started) / APART
    return Trained(params={"distance": np.array(distances, dtype=np.float32)}, value=seconds)


def _invert(module: nn.Module, victim: Victim, steps: int) -> float:
    """The distance that is reached."""
    params = list(module.parameters())
    wanted = list(victim.gradient.values())
    length = torch.sqrt(sum((value.square().sum() for value in wanted), torch.zeros(())))
    image, label = torch.from_numpy(victim.start.copy()).requires_grad_(), torch.tensor([victim.label])
    optimizer = torch.optim.Adam([image], lr=0.1)

    def distance(create_graph: bool) -> Tensor:
        loss = F.cross_entropy(module(image), label)
        found = torch.autograd.grad(loss, params, create_graph=create_graph)
        dot = sum(((a * b).sum() for a, b in zip(found, wanted, strict=True)), torch.zeros(()))
        square = sum((a.square().sum() for a in found), torch.zeros(()))
        return 1 - dot / (square.sqrt() * length)

    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = decayed(0.1, step, steps)
        (slope,) = torch.autograd.grad(distance(True), image)
        image.grad = slope.sign()
        optimizer.step()
        with torch.no_grad():
            image.clamp_(0, 1)
    return float(distance(False))


def ours(name: str) -> Trained:
    """All victims at once, on every core; the start of processes is included."""
    from fedmem.attacks.inverting_gradients import InvertingGradients
    from fedmem.contracts.attack import GradientTarget
    from fedmem.processes import cores, hold_on_to_memory, share_processes

    torch.set_num_threads(1)
    module = network_of(name)
    params = {key: value.detach() for key, value in module.named_parameters()}
    targets = [
        GradientTarget(
            model=module,
            params=params,
            gradient=one.gradient,
            num_images=1,
            input_shape=SHAPE,
            num_classes=NETWORKS[name]["classes"],
            modality=Images(),
            knows="",
            labels=np.array([one.label]),
        )
        for one in victims(name, module, TOGETHER)
    ]
    rngs = [generator(i) for i in range(TOGETHER)]
    InvertingGradients(steps=1, tv=0.0, labels="known").reconstruct(targets[:2], [generator(0), generator(1)])
    attack = InvertingGradients(steps=STEPS[name], tv=0.0, labels="known")
    with hold_on_to_memory(), share_processes(cores()):
        started = time.perf_counter()
        found = attack.reconstruct(targets, rngs)
        seconds = (time.perf_counter() - started) / TOGETHER
    distances = [one.distance for one in found[:APART]]
    return Trained(params={"distance": np.array(distances, dtype=np.float32)}, value=seconds)


WHO = {"plain": plain, "ours": ours}


def main() -> None:
    """The command of this contender."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("who", choices=WHO)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    write(given.out, WHO[given.who](given.network))


if __name__ == "__main__":
    main()
