"""Gradient inversion by breaching: `python -m benchmarks.peers.breaching NETWORK --out FILE`."""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import breaching
import numpy as np
import torch
from torch import nn

from benchmarks.contender import Trained, write
from benchmarks.inversion import APART
from benchmarks.victims import NETWORKS, SHAPE, STEPS, Victim, network_of, victims


def invert(name: str) -> Trained:
    """One victim after the other, with its own preset for the paper's attack; its total variation has no weight."""
    torch.set_num_threads(1)
    module = network_of(name)
    given = victims(name, module, APART)
    _one(module, given[0], 3)
    started = time.perf_counter()
    found = [_one(module, one, STEPS[name]) for one in given]
    seconds = (time.perf_counter() - started) / APART
    return Trained(params={"distance": np.array(found, dtype=np.float32)}, value=seconds)


def _one(module: nn.Module, victim: Victim, steps: int) -> float:
    """The distance that is reached, by its own score."""
    config: Any = copy.deepcopy(breaching.get_attack_config("invertinggradients"))
    config.optim.max_iterations = steps
    config.regularization.total_variation.scale = 0.0
    setup = {"dtype": torch.float, "device": torch.device("cpu")}
    attacker = breaching.attacks.prepare_attack(module, nn.CrossEntropyLoss(), config, setup)
    metadata = SimpleNamespace(shape=SHAPE, modality="vision")
    payload = {"parameters": list(module.parameters()), "buffers": [], "metadata": metadata}
    shared = {
        "gradients": list(victim.gradient.values()),
        "buffers": None,
        "metadata": {"num_data_points": 1, "labels": torch.tensor([victim.label]), "local_hyperparams": None},
    }
    start = torch.from_numpy(victim.start)
    _, stats = attacker.reconstruct([payload], [shared], {}, initial_data=start)
    return float(stats["opt_value"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    write(arguments.out, invert(arguments.network))
