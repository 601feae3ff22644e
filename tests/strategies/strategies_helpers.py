"""What tests of strategies share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fedmem.strategies._rule import Round


def one_round(sent: Any, before: Any = None, sizes: Any = None, number: int = 1, clients: Any = None) -> Round:
    """One run: `sent` (K, P) as the only parameter, `w`."""
    sent = torch.as_tensor(np.asarray(sent, dtype=np.float32))
    places = len(sent)
    before = np.zeros(sent.shape[1:]) if before is None else before
    return Round(
        number=number,
        before={"w": torch.as_tensor(np.asarray(before, dtype=np.float32))[None]},
        sent={"w": sent[None]},
        weights=torch.tensor([[1.0] * places if sizes is None else list(map(float, sizes))], dtype=torch.float64),
        present=torch.ones((1, places), dtype=torch.bool),
        clients=torch.arange(places)[None] if clients is None else torch.tensor([clients]),
    )


def aggregate(strategy: Any, sent: Any, **others: Any) -> np.ndarray:
    out: np.ndarray = strategy.rule({}, one_round(sent, **others))[0]["w"][0].numpy()
    return out


def naive_scores(sent: np.ndarray, neighbours: int) -> list[float]:
    """Sum of squared distances to the nearest others, in plain loops."""
    scores = []
    for i, one in enumerate(sent):
        apart = [sum((float(a) - float(b)) ** 2 for a, b in zip(one, other, strict=True)) for other in sent]
        scores.append(sum(sorted(apart[:i] + apart[i + 1 :])[:neighbours]))
    return scores


def round_of(values: list[float], sizes: list[float], present: list[bool]) -> Round:
    """A round of one run and one parameter: what clients sent, their sizes, and which of them are present."""
    return Round(
        number=1,
        before={"w": torch.zeros(1, 1)},
        sent={"w": torch.tensor(values).reshape(1, -1, 1)},
        weights=torch.tensor([sizes]).double(),
        present=torch.tensor([present]),
        clients=torch.arange(len(values))[None],
    )
