"""The most probable candidates in order, by a search that reads only prefixes that could still begin one of them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.modalities.text.language_model import CausalModel, State, read_prefix
from fedmem.modalities.text.prefix_tree import Tree, costs
from fedmem.modalities.text.secret_space import Candidates

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MostProbable:
    """`numbers` of members, most probable first, their `loss` in nats, and `calls`, how many tokens the model read.

    `finished` says whether these are all that were requested, or all there are. Otherwise the search ended at its limit
    of calls, and the members found are still the most probable ones of all.
    """

    numbers: tuple[int, ...]
    loss: tuple[float, ...]
    calls: int
    finished: bool

    def rank(self, number: int) -> int | None:
        """The rank of a member, 1 for the most probable, ties by number; None if it was not found."""
        return self.numbers.index(number) + 1 if number in self.numbers else None


def search_most_probable(
    model: CausalModel, space: Candidates, count: int = 1, *, calls: float = math.inf, at_once: int = 1
) -> MostProbable:
    """The `count` members of a space with the smallest loss, in order: Dijkstra's search on -log p.

    An edge of the tree of prefixes costs -log p of its token, which is never negative. The first complete members that
    the search meets are therefore the most probable. Loss is that of `prefix_tree.scores`, in nats. Members of equal
    loss are in order of their number.

    With `at_once` = 1 no prefix is read that is less likely than the last member found. With more, that many prefixes
    are read at a time. This is faster on a network, spends some calls in vain, and finds the same members. After
    `calls` tokens the search ends with what it has.

    Guarantees:

    - the same members in the same order as sorting all losses would give, up to the rounding of the model;
    - a member whose loss is NaN is never found, one whose probability is 0 comes last;
    - deterministic; spaces may be far larger than what could be enumerated.

    >>> class Sure:
    ...     def start(self, batch): return (torch.zeros(batch),)
    ...     def advance(self, state, tokens): return torch.tensor([[.9, .06, .04]]).log().expand(len(tokens), 3), state
    ...     def select(self, state, rows): return (state[0][rows],)
    >>> import torch
    >>> digits = Candidates(prefix=(0,), positions=(((0,), (1,), (2,)),) * 20)
    >>> found = search_most_probable(Sure(), digits, 2)
    >>> [round(math.exp(-loss) / .9**20, 4) for loss in found.loss], digits.size, found.calls < 500
    ([1.0, 0.0667], 3486784401, True)

    Reference: Carlini, Liu, Erlingsson, Kos and Song (2019), The Secret Sharer, section 6, extraction by shortest path.
    """
    assert count >= 1
    assert at_once >= 1
    members: list[tuple[float, int]] = []
    frontier = _Frontier(model, space)
    stopped = False
    while len(members) < count and not stopped and (entry := frontier.pop_smallest()) is not None:
        if entry.complete:
            members.append((entry.loss, entry.number))
        elif frontier.calls >= calls:
            stopped = True
        else:
            frontier.expand([entry, *frontier.pop_more(int(min(at_once, calls - frontier.calls)) - 1)])
    return MostProbable(
        numbers=tuple(number for _, number in members),
        loss=tuple(loss for loss, _ in members),
        calls=frontier.calls,
        finished=not stopped,
    )


@dataclass(frozen=True, order=True)
class _Entry:
    """A place that the search can go to, smallest loss first, unread prefixes before members of the same loss.

    `number` is of the member, or of the part of it so far; `order` tells alike entries apart. `node` is where in the
    tree, `row` where in `state` the text before its last token.
    """

    loss: float
    complete: bool
    number: int
    order: int
    node: int = field(default=0, compare=False)
    row: int = field(default=0, compare=False)
    stored: _StoredState | None = field(default=None, compare=False)


@dataclass(frozen=True)
class _StoredState:
    """The state of texts that were read at once; kept as long as something goes on from it."""

    state: State


class _Frontier:
    """All that the search may look at next."""

    def __init__(self, model: CausalModel, space: Candidates) -> None:
        self._model, self._tree = model, Tree.of(space)
        self._heap: list[_Entry] = []
        self._order = 0
        self.calls = 0
        if len(self._tree.children):
            logits, state = read_prefix(model, space.prefix)
            self.calls = len(space.prefix)
            self._push(logits, _StoredState(state), [(0, 0, 0, 0.0)])
        else:
            self._add(0.0, complete=True, number=0)

    def pop_smallest(self) -> _Entry | None:
        """The entry of the smallest loss, taken away; None if there is none."""
        return heapq.heappop(self._heap) if self._heap else None

    def pop_more(self, max_count: int) -> Iterator[_Entry]:
        """At most so many of those that come next, as long as they are prefixes, taken away."""
        while max_count > 0 and self._heap and not self._heap[0].complete:
            max_count -= 1
            yield heapq.heappop(self._heap)

    def expand(self, entries: list[_Entry]) -> None:
        """Read the last token of these prefixes, and put in their place all that may follow."""
        import torch

        groups: dict[tuple[torch.Size, ...], list[tuple[_Entry, State]]] = {}
        for entry in entries:
            assert entry.stored is not None
            state = self._model.select(entry.stored.state, torch.tensor([entry.row]))
            # a cache is as long as its text, and only texts of one length are read at once
            groups.setdefault(tuple(part.shape[1:] for part in state), []).append((entry, state))
        for group in groups.values():
            same_state = [entry for entry, _ in group]
            together = tuple(torch.cat(parts) for parts in zip(*(state for _, state in group), strict=True))
            tokens = torch.from_numpy(self._tree.token[[entry.node for entry in same_state]])
            logits, state = self._model.advance(together, tokens)
            self.calls += len(same_state)
            self._go_on(same_state, logits, _StoredState(state))

    def _go_on(self, entries: list[_Entry], logits: Tensor, shared_state: _StoredState) -> None:
        """Add all continuations of these prefixes, in their own slot and in the next; each has a row of the logits."""
        tree = self._tree
        places = []
        for row, entry in enumerate(entries):
            node = entry.node
            if tree.count[node]:
                places.append((row, node, entry.number, entry.loss))
            if tree.after[node] >= 0:
                places.append((row, int(tree.after[node]), self._complete(entry.number, node), entry.loss))
        self._push(logits, shared_state, places)

    def _complete(self, number: int, node: int) -> int:
        return number * int(self._tree.base[node]) + int(self._tree.option[node])

    def _push(self, logits: Tensor, shared_state: _StoredState, places: list[tuple[int, int, int, float]]) -> None:
        """Add the children of these places: the row of the state, the node, the number and the loss so far of each."""
        tree = self._tree
        for row, place, number, before in places:
            nodes = tree.children[tree.first[place] : tree.first[place] + tree.count[place]]
            losses = before + np.where(
                tree.secret[nodes], costs(logits, np.full(len(nodes), row), tree.token[nodes]), 0.0
            )
            for node, loss in zip(nodes.tolist(), losses.tolist(), strict=True):
                if math.isnan(loss):
                    continue
                ended = tree.option[node] >= 0
                if ended and tree.after[node] < 0:
                    self._add(loss, complete=True, number=self._complete(number, node))
                if tree.count[node] or tree.after[node] >= 0:
                    self._add(loss, complete=False, number=number, node=node, row=row, stored=shared_state)

    def _add(self, loss: float, **entry: Any) -> None:
        self._order += 1
        heapq.heappush(self._heap, _Entry(loss, order=self._order, **entry))
