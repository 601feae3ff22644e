"""The rank of a secret among a million: by the tree of prefixes, or candidate by candidate, in batches of one size.

`python -m benchmarks.exposure WAY --out FILE`; the network is small, and has learnt one of the secrets by heart.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.contender import Trained, write
from fedmem.modalities.text.language_model import causal, read_prefix
from fedmem.modalities.text.prefix_tree import BRANCHES, scores
from fedmem.modalities.text.secret_space import Candidates
from fedmem.models.char_rnn import CharRnn

VOCABULARY, PREFIX, DIGITS, ALPHABET = 96, 20, 6, 10
SECRETS = 8
"""How many are ranked; the first was learnt."""
STEPS = 60


def space(digits: int = DIGITS) -> Candidates:
    """All numbers of so many digits after a text of 20 tokens."""
    return Candidates(
        prefix=tuple(range(30, 30 + PREFIX)), positions=(tuple((digit,) for digit in range(ALPHABET)),) * digits
    )


def network(candidates: Candidates) -> tuple[Any, list[int]]:
    """A GRU that has seen one member often, and the numbers of that member and others."""
    numbers = np.random.default_rng(0).choice(candidates.size, size=SECRETS, replace=False).tolist()
    torch.manual_seed(0)
    module = CharRnn().build((PREFIX + DIGITS,), VOCABULARY)
    secret = torch.tensor([candidates.member_tokens(numbers[0])])
    for _ in range(STEPS):
        loss = functional.cross_entropy(module(secret[:, :-1])[0], secret[0, 1:])
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        with torch.no_grad():
            for value, gradient in zip(module.parameters(), gradients, strict=True):
                value.sub_(0.5 * gradient)
    return module, numbers


def by_tree(module: Any, candidates: Candidates) -> NDArray[np.float64]:
    """The losses of all members as fedmem finds them."""
    return scores(causal(module, dict(module.named_parameters())), candidates).loss


def one_by_one(module: Any, candidates: Candidates) -> NDArray[np.float64]:
    """The same from each member on its own, by the fused kernels of torch, as many at once as the tree has branches.

    What all have in common is read once here as well: the fixed text, and what comes after it.
    """
    model = causal(module, dict(module.named_parameters()))
    logits, state = read_prefix(model, candidates.prefix)
    digits = len(candidates.positions)
    first = logits.double().log_softmax(dim=1)[0]
    found = np.empty(candidates.size)
    with torch.no_grad():
        for start in range(0, candidates.size, BRANCHES):
            numbers = np.arange(start, min(start + BRANCHES, candidates.size))
            members = np.stack([numbers // ALPHABET**place % ALPHABET for place in reversed(range(digits))], axis=1)
            tokens = torch.from_numpy(members)
            hidden = state[0].transpose(0, 1).expand(-1, len(tokens), -1).contiguous()
            outputs = module.output(module.recurrent(module.embedding(tokens[:, :-1]), hidden)[0])
            told = outputs.double().log_softmax(dim=2).gather(2, tokens[:, 1:, None])[..., 0].sum(dim=1)
            found[start : start + len(tokens)] = -(first[tokens[:, 0]] + told).numpy()
    return found


WAYS: dict[str, Callable[[Any, Candidates], NDArray[np.float64]]] = {"tree": by_tree, "sequences": one_by_one}


def rank(way: str, digits: int = DIGITS) -> Trained:
    """Seconds until the loss of every member is known, and the ranks of the secrets among them."""
    candidates = space(digits)
    module, numbers = network(candidates)
    torch.set_num_threads(1)
    WAYS[way](module, space(2))  # warm
    started = time.perf_counter()
    losses = WAYS[way](module, candidates)
    ranks = [1 + int(np.count_nonzero(losses < losses[number])) for number in numbers]
    return Trained(params={"rank": np.array(ranks)}, value=time.perf_counter() - started)


def main() -> None:
    """The command of this contender."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    write(given.out, rank(given.way))


if __name__ == "__main__":
    main()
