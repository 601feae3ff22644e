"""The losses of every candidate at once: a tree of their prefixes, each of which is read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmem.modalities.text.language_model import CausalModel, State, read_prefix
from fedmem.modalities.text.secret_space import Candidates

if TYPE_CHECKING:
    from torch import Tensor

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ENUMERABLE = 10**6
"""How many members a space may have for a canary to be ranked among all of them."""
BRANCHES = 2048
"""How many prefixes are read at once: enough to keep a small model busy."""
CHILDREN = 1 << 20
"""How many continuations are looked at at once."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The prefixes of all candidates as nodes; node 0 is after the fixed prefix, before the first token of a slot.

    For each node, `token` is the token that it ends with, and `secret` says whether this is secret. `option` is the
    option of its slot that is complete there (-1: none), and `base` is how many options that slot has. `after` is the
    node from which the next slot goes on. It is -1 where the member is complete, since fixed text at the end reveals
    nothing. The nodes that follow node v are `children[first[v] : first[v] + count[v]]`. Where an option is the
    beginning of another, both go on from its node.
    """

    token: Ints
    secret: NDArray[np.bool_]
    option: Ints
    base: Ints
    after: Ints
    first: Ints
    count: Ints
    children: Ints

    @staticmethod
    def of(space: Candidates) -> Tree:
        """Slot by slot; what comes after the last slot with a choice is left out."""
        choosing = [j for j, options in enumerate(space.positions) if len(options) > 1]
        fields = space.positions[: choosing[-1] + 1] if choosing else ()
        # token, secret, option, base, after; the root of a slot has no token of its own
        nodes: list[list[int]] = [[-1, 0, -1, 1, -1]]
        below: list[dict[int, int]] = [{}]
        root = 0
        for j, options in enumerate(fields):
            ends = []
            for option, tokens in enumerate(options):
                place = root
                for token in tokens:
                    if token not in below[place]:
                        below[place][token] = len(nodes)
                        nodes.append([token, int(len(options) > 1), -1, len(options), -1])
                        below.append({})
                    place = below[place][token]
                nodes[place][2] = option
                ends.append(place)
            if j + 1 < len(fields):
                root = len(nodes)
                nodes.append([-1, 0, -1, 1, -1])
                below.append({})
                for place in ends:
                    nodes[place][4] = root
        table = np.array(nodes, dtype=np.int64)
        count = np.array([len(children) for children in below], dtype=np.int64)
        return Tree(
            token=table[:, 0],
            secret=table[:, 1].astype(bool),
            option=table[:, 2],
            base=table[:, 3],
            after=table[:, 4],
            first=np.cumsum(count) - count,
            count=count,
            children=np.array([child for children in below for child in children.values()], dtype=np.int64),
        )


@dataclass(frozen=True, kw_only=True)
class ScoredMembers:
    """`loss` (|R|,) of every member, the sum of -log p over its secret tokens in nats; `calls`, tokens read for it."""

    loss: Floats
    calls: int

    def count_smaller(self, number: int) -> int:
        """The number of members with a smaller loss than this one; -1 where its loss is NaN. NaN is never smaller."""
        loss = self.loss[number]
        return -1 if np.isnan(loss) else int(np.count_nonzero(self.loss < loss))

    def ties(self, number: int) -> int:
        """The number of other members with exactly the same loss; NaN equals nothing."""
        return max(0, int(np.count_nonzero(self.loss == self.loss[number])) - 1)


def scores(model: CausalModel, space: Candidates, branches: int = BRANCHES) -> ScoredMembers:
    """The loss of every member of a space, from one pass over the tree of its prefixes.

    `loss[i] = - sum over the secret tokens of member i of log p(token | all before it)`, in nats, summed in float64: 0
    .. inf, lower means likelier. Cost and `calls` are the distinct prefixes that something follows. For 6 digits they
    are 111 111 and those of the fixed prefix, where reading each of 10^6 members takes 6 million. At most `branches` of
    them are in memory for each token of a member.

    Guarantees:

    - exact: the sums of reading each member from its beginning, up to the rounding of the model's own arithmetic;
    - members whose probabilities are equal bit by bit have equal losses;
    - deterministic, and nothing of the model is changed.

    >>> class Uniform:
    ...     def start(self, batch): return (torch.zeros(batch),)
    ...     def advance(self, state, tokens): return torch.zeros(len(tokens), 4), state
    ...     def select(self, state, rows): return (state[0][rows],)
    >>> import torch
    >>> found = scores(Uniform(), Candidates(prefix=(0,), positions=(((1,), (2,)), ((3,), (1,)))))
    >>> bool(np.allclose(found.loss, 2 * np.log(4))), found.calls, found.count_smaller(2), found.ties(2)
    (True, 3, 0, 3)

    Reference: Carlini, Liu, Erlingsson, Kos and Song (2019), The Secret Sharer, for log-perplexity and its rank.
    """
    tree = Tree.of(space)
    search = _Search(model, tree, np.full(space.size, np.nan), min(branches, 1 + CHILDREN // max(1, tree.count.max())))
    if not len(tree.children):
        return ScoredMembers(loss=np.zeros(space.size), calls=0)
    logits, state = read_prefix(model, space.prefix)
    zero = np.zeros(1, dtype=np.int64)
    search.visit(state, logits, _Branches(row=zero, node=zero, number=zero, loss=np.zeros(1)))

    return ScoredMembers(loss=search.losses, calls=search.calls + len(space.prefix))


@dataclass(frozen=True, kw_only=True)
class _Branches:
    """n branches: the `row` of the state of each, its node, its number and its loss so far."""

    row: Ints
    node: Ints
    number: Ints
    loss: Floats


class _Search:
    """Goes down the tree depth first, so that few states are held, and many branches at a time, so that it is fast."""

    def __init__(self, model: CausalModel, tree: Tree, losses: Floats, max_rows: int) -> None:
        self._model, self._tree, self._max_states = model, tree, max_rows
        self.losses, self.calls = losses, 0

    def visit(self, state: State, logits: Tensor, branches: _Branches) -> None:
        """Everything below these branches."""
        import torch

        tree = self._tree
        source = np.repeat(np.arange(len(branches.node)), tree.count[branches.node])
        within = np.arange(len(source)) - np.repeat(
            np.cumsum(tree.count[branches.node]) - tree.count[branches.node], tree.count[branches.node]
        )
        node = tree.children[tree.first[branches.node][source] + within]
        row = branches.row[source]
        loss = branches.loss[source] + np.where(tree.secret[node], costs(logits, row, tree.token[node]), 0.0)
        ended = tree.option[node] >= 0
        number = branches.number[source]
        complete = np.where(ended, number * tree.base[node] + tree.option[node], -1)
        is_final = ended & (tree.after[node] < 0)
        self.losses[complete[is_final]] = loss[is_final]
        further = np.flatnonzero((tree.count[node] > 0) | (ended & ~is_final))
        for start in range(0, len(further), self._max_states):
            part = further[start : start + self._max_states]
            next_state = self._model.select(state, torch.from_numpy(row[part]))
            next_logits, next_state = self._model.advance(next_state, torch.from_numpy(tree.token[node[part]]))
            self.calls += len(part)
            longer = np.flatnonzero(tree.count[node[part]] > 0)
            on = np.flatnonzero((ended & ~is_final)[part])
            self.visit(
                next_state,
                next_logits,
                _Branches(
                    row=np.concatenate([longer, on]),
                    node=np.concatenate([node[part[longer]], tree.after[node[part[on]]]]),
                    number=np.concatenate([number[part[longer]], complete[part[on]]]),
                    loss=loss[np.concatenate([part[longer], part[on]])],
                ),
            )


def costs(logits: Tensor, rows: Ints, tokens: Ints) -> Floats:
    """-log p of tokens (n,) under the logits (b, V) of these rows (n,), in nats and float64."""
    import torch

    z = logits.double()
    among = z.logsumexp(dim=1)[torch.from_numpy(rows)]
    return np.asarray((among - z[torch.from_numpy(rows), torch.from_numpy(tokens)]).numpy())
