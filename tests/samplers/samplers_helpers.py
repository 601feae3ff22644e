"""What tests of samplers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from fedmem.contracts.sampler import History, Sampler


def history(clients: int) -> History:
    return History.start([30] * clients)


def participation(sampler: Sampler, known: int | History, rounds: int) -> np.ndarray:
    """(rounds, clients) who took part, one round after the other."""
    rng = np.random.default_rng(0)
    known = history(known) if isinstance(known, int) else known
    took = np.zeros((rounds, known.num_clients), dtype=bool)
    for round_number in range(rounds):
        cohort = sampler.cohort(round_number + 1, known, rng)
        took[round_number, cohort] = True
        last_round = known.last_round.copy()
        last_round[cohort] = round_number + 1
        known = replace(known, last_round=last_round)
    return took


def agree(counts: Sequence[float], rounds: int, truth: Sequence[float]) -> bool:
    """Whether these counts out of so many rounds fit these probabilities, all together."""
    return min(stats.binomtest(int(c), rounds, p).pvalue for c, p in zip(counts, truth, strict=True)) > 1e-4
