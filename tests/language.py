"""Language models small enough to enumerate: a recurrent network, and one whose every probability is written down."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fedmem.contracts.audit_set import AuditSet, References
from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.modalities.text.language_model import CausalModel, State, read_prefix
from fedmem.modalities.text.secret_space import Candidates
from fedmem.modalities.texts import Texts

VOCABULARY = 5


class Recurrent(nn.Module):
    """A GRU over tokens, with the state of a network that reads on."""

    def __init__(self, seed: int = 0, width: int = 6, vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(vocabulary, width)
        self.cell = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)
        with torch.no_grad():
            for value in self.parameters():
                value.mul_(3)  # sure of itself, so that members differ

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.cell(self.embedding(tokens))[0])
        return logits

    def start(self, batch: int) -> State:
        return (torch.zeros(batch, self.cell.hidden_size),)

    def advance(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        out, hidden = self.cell(self.embedding(tokens[:, None]), state[0][None].contiguous())
        return self.head(out[:, 0]), (hidden[0],)


class Written:
    """A model whose probabilities are `law(text so far)`, a sequence of V numbers that add up to one; counts calls."""

    def __init__(self, law: Callable[[tuple[int, ...]], Sequence[float]]) -> None:
        self._law, self.calls = law, 0

    def start(self, batch: int) -> State:
        return (torch.empty(batch, 0, dtype=torch.int64),)

    def advance(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        self.calls += len(tokens)
        texts = torch.cat((state[0], tokens[:, None]), dim=1)
        p = np.array([self._law(tuple(text)) for text in texts.tolist()], dtype=np.float64)
        with np.errstate(divide="ignore"):
            return torch.from_numpy(np.log(p)), (texts,)

    def select(self, state: State, rows: Tensor) -> State:
        return (state[0].index_select(0, rows),)


def chances(text: tuple[int, ...], vocabulary: int = VOCABULARY) -> list[float]:
    """Probabilities that depend on every token so far, with nothing regular about them."""
    p = np.random.default_rng([len(text), *text]).dirichlet(np.full(vocabulary, 0.5))
    return list(p)


def brute_force(model: CausalModel, space: Candidates) -> list[float]:
    """The loss of each member, read from its beginning, token by token."""
    return [loss_of(model, space.member_tokens(i), space.secret(i)) for i in range(space.size)]


def loss_of(model: CausalModel, tokens: Sequence[int], asked: Sequence[bool]) -> float:
    """The sum of -log p over the tokens of one text that are asked for."""
    total = 0.0
    for place in range(1, len(tokens)):
        if asked[place]:
            logits, _ = read_prefix(model, tokens[:place])
            total -= float(logits.double().log_softmax(dim=1)[0, tokens[place]])
    return total


CLIENTS, BASE, RUNS, LENGTH = 3, 8, 4, 6


def text_federation(space: Candidates | None = None, copies: int = 1) -> Federation:
    """Three clients with rows of random tokens; each holds two secrets of a space, in in half of the runs."""
    space, rng = space or digits(3), np.random.default_rng(5)
    numbers = rng.choice(space.size, size=2 * CLIENTS, replace=False).tolist()
    secrets = Examples.concatenate([example(space.member_tokens(i), space.secret(i)) for i in numbers])
    owner = np.repeat(np.arange(CLIENTS), 2)
    audit = AuditSet(
        examples=secrets,
        kind=np.array(["secret"] * len(secrets)),
        role=np.array(["canary"] * len(secrets)),
        owner=owner.astype(np.int32),
        copies=np.full(len(secrets), copies, dtype=np.int32),
        is_in=(np.arange(RUNS)[:, None] + np.arange(len(secrets))[None]) % 2 == 0,
    )

    def random_rows(count: int) -> Examples:
        tokens = rng.integers(VOCABULARY, size=(count, LENGTH + 1))
        return Examples(inputs=tokens[:, :-1], targets=tokens[:, 1:], ids=np.arange(count))

    start, total = CLIENTS * BASE, copies * len(secrets)
    fill = np.where(np.repeat(audit.is_in, copies, axis=1), -1, start + len(secrets) + np.arange(total)[None])
    network = Recurrent()
    return Federation(
        store=Examples.concatenate([random_rows(start), secrets, random_rows(total)]),
        base=tuple(np.arange(BASE * k, BASE * (k + 1)) for k in range(CLIENTS)),
        audit=audit,
        audit_start=start,
        trained_rows=start + np.repeat(np.arange(len(secrets)), copies),
        replacement=fill,
        test=random_rows(4),
        population=random_rows(4),
        references=(References(family="secret", inputs=secrets.inputs, targets=secrets.targets, space=space),),
        model=network,
        initial={name: value.detach().clone() for name, value in network.named_parameters()},
        num_classes=VOCABULARY,
        modality=Texts(),
        counts={},
    )


def example(tokens: Sequence[int], asked: Sequence[bool]) -> Examples:
    """A text as one row, padded, in which these tokens are asked for."""
    width = LENGTH + 1 - len(tokens)
    whole = np.array([[*tokens, *[0] * width]], dtype=np.int64)
    wanted = np.array([[*asked, *[False] * width]])
    return Examples(inputs=whole[:, :-1], targets=np.where(wanted, whole, -1)[:, 1:], ids=np.array([-1]))


def digits(places: int, alphabet: int = VOCABULARY, prefix: tuple[int, ...] = (0,)) -> Candidates:
    """Every sequence of so many tokens."""
    return Candidates(prefix=prefix, positions=(tuple((token,) for token in range(alphabet)),) * places)


SPACES = {
    "digits": digits(3),
    "words": Candidates(prefix=(4, 2), positions=(((1, 2, 3), (1, 2), (1,), (3, 1)), ((0,), (2, 2), (2, 0)))),
    "fixed text": Candidates(prefix=(1,), positions=(((3, 3),), ((0,), (1, 1)), ((2, 4),), ((1,), (2,)), ((3,),))),
    "one slot": Candidates(prefix=(0, 1, 2), positions=(tuple(itertools.product(range(3), range(2))),)),
    "no choice": Candidates(prefix=(0,), positions=(((1, 2),),)),
    "nothing": Candidates(prefix=(0,), positions=()),
}
