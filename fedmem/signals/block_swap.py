"""Block swap: what a model says of examples after one of its blocks was replaced by that of another model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, MinLen

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.contracts.signal import SignalContext
from fedmem.errors import ComponentError
from fedmem.signals._observed_rounds import ObservedRounds
from fedmem.signals._retraining import Retraining

NONE, ALL = "none", "all"
"""The variants in which no block is swapped, and all blocks."""

Source = Literal["received", "initial", "other_level", "retrained"]


@dataclass(frozen=True, kw_only=True)
class BlockSwap(ObservedRounds):
    """Margins, correctness and test accuracy of hybrids: a model with one block from a source, the others its own.

    - `swap_margin`, `swap_correct`: of each example, at the hybrid;
    - `swap_accuracy`: of that hybrid on test examples.

    Each is stored for every source and block, as `<name>.<source>.<block>`, and has no rows in tables: `localisation`
    reads them. Blocks are numbered from 1 in the order of their calls. A block is a matrix or kernel with all that
    follows it up to the next one: bias, normalisation and running statistics go with it. The last block yields the
    logits. Frozen parameters are in no block. The block `none` swaps nothing and `all` swaps everything, as checks.

    Models of runs with and without an example are swapped in the same way. At a client, only its own examples are
    read. Values are NaN at round 0, and where a source has no model.

    Sources

    - `received`: the model before this participation; at the aggregate, the aggregate before the round.
    - `initial`: the initial model of the same run.
    - `other_level`: into an owner's model the aggregate of the same round. Into the aggregate the model of the owning
      client, one hybrid for each owner that took part in the round.
    - `retrained`: the same model with the block reset to the initial model and trained alone. It is trained on base
      rows, which are no audit examples: those of the client. At the aggregate, those of all clients that exist in the
      run and are not forgotten. The other blocks are frozen, and dropout and defences are off. With `all`, all blocks
      are trained again together.
    - `round <N>`: the model of the same place after round N. A client that took no part in that round has none.

    Fields

    - `sources`: which of `received`, `initial`, `other_level` and `retrained` are used.
    - `rewind_to`: the rounds N. They must be observed.
    - `test_rows`: how many test examples are used for the accuracy, at most. They are drawn at random, the same for all
      models.
    - `retrain_epochs`: passes over the rows when a block is trained again, by plain gradient descent.
    - `retrain_lr`: the length of its steps.
    - `retrain_batch_size`: the rows of a step.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> BlockSwap(sources=("initial",)).reads_update, BlockSwap().reads_update
    (False, True)

    Reference: Maini et al. (2023), Can neural network memorization be localized?
    """

    texts: ClassVar[bool] = True
    owners_only: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("swap_margin", "swap_correct", "swap_accuracy")

    sources: Annotated[tuple[Source, ...], MinLen(0)] = ("received", "initial", "other_level")
    rewind_to: tuple[Annotated[int, Ge(0)], ...] = ()
    test_rows: Annotated[int, Gt(0)] = 500
    retrain_epochs: Annotated[int, Gt(0), "identity_neutral"] = 5
    retrain_lr: Annotated[float, Gt(0), "identity_neutral"] = 0.1
    retrain_batch_size: Annotated[int, Gt(0), "identity_neutral"] = 10

    def __post_init__(self) -> None:
        if not self._names:
            raise ComponentError("sources", "no source is left; name one, such as received, or a round in rewind_to")
        if len(set(self._names)) < len(self._names):
            raise ComponentError("sources", "a source is named twice; name each source and round once")

    @property
    def _names(self) -> tuple[str, ...]:
        """The sources as the label `block_source` names them."""
        return (*self.sources, *(f"round {number}" for number in self.rewind_to))

    @property
    def earlier_rounds(self) -> tuple[int, ...]:
        """The rounds that models are taken back to."""
        return self.rewind_to

    @property
    def reads_update(self) -> bool:
        """Unless all that it needs is the initial model: saved models have no other source."""
        return not {*self._names} <= {"initial", "retrained"}

    def passes_in(self, federation: Federation) -> tuple[float, float]:
        """Each hybrid answers about the example, and about the test examples; training costs three passes of a row."""
        count = len(self._hybrids(federation))
        return float(count), float(count * min(self.test_rows, len(federation.test))) + self._retrained_rows(federation)

    def _retrained_rows(self, federation: Federation) -> float:
        """Forward passes by which blocks are trained again at a model, on average over the levels."""
        if "retrained" not in self.sources:
            return 0.0
        # an aggregate has the rows of all its clients, and there is one for all of their models
        rows, clients = float(federation.base_sizes.sum()), len(federation.base_sizes)
        models = {"local": clients, "global": 1}
        per_model = rows * len(self.levels) / max(1, sum(models[level] for level in self.levels))
        return 3.0 * self.retrain_epochs * (len(_blocks(federation)) + 1) * per_model

    def variant_names(self, federation: Federation) -> Mapping[str, Sequence[str]]:
        """Each source with each block."""
        return dict.fromkeys(self.variants, self._hybrids(federation))

    def _hybrids(self, federation: Federation) -> tuple[str, ...]:
        numbers = map(str, range(1, len(_blocks(federation)) + 1))
        parts = (NONE, *numbers, ALL)
        return tuple(f"{source}.{part}" for source in self._names for part in parts)

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        blocks = _blocks(context.federation)
        width = len(blocks) + 2
        shape = len(context.transitions), len(context.examples), width * len(self._names)
        margin, correct, accuracy = np.full((3, *shape), np.nan)
        test = self._test(context)
        for position in range(len(context.transitions)):
            for place, source in enumerate(self._names):
                columns = slice(place * width, (place + 1) * width)
                for rows, swapped in self._hybrids_at(context, position, source, blocks):
                    of_rows = context.answers_of(swapped, context.examples.take(rows))
                    margin[position, rows, columns], correct[position, rows, columns] = (part.T for part in of_rows)
                    if len(test):
                        accuracy[position, rows, columns] = context.answers_of(swapped, test)[1].mean(axis=1)
        return {"swap_margin": margin, "swap_correct": correct, "swap_accuracy": accuracy}

    def _hybrids_at(
        self, context: SignalContext, position: int, source: str, blocks: Sequence[Sequence[str]]
    ) -> Iterator[tuple[IntArray, list[Params]]]:
        """The hybrids of a model, each time with the examples that they are asked about."""
        model = context.models[position]
        if source != "retrained":
            for rows, other in _sources(context, position, source):
                yield rows, hybrids(model, other, blocks)
            return
        for rows, initial in _sources(context, position, "initial"):
            again = [self._retrain(context, position, initial, names) for names in _parts(blocks)]
            yield rows, [model, *again]

    def _retrain(self, context: SignalContext, position: int, initial: Params, names: Sequence[str]) -> Params:
        """A model of which these entries were trained again, each time on the same batches."""
        transition, federation = context.transitions[position], context.federation
        client = transition.client if transition.level == "local" else None
        rows = federation.base[client] if client is not None else _base_rows(federation, transition.run)
        train = Retraining(epochs=self.retrain_epochs, lr=self.retrain_lr, batch_size=self.retrain_batch_size)
        order = context.stream("block retraining", run=transition.run, round_number=transition.round, client=client)
        statistics = federation.mode.statistics
        return train(
            context.network, context.models[position], initial, names, federation.store.take(rows), order, statistics
        )

    def _test(self, context: SignalContext) -> Examples:
        """The test examples whose accuracy is read."""
        test = context.federation.test
        order = context.stream("block swap test rows").permutation(len(test))
        return test.take(np.sort(order[: self.test_rows]))


def _base_rows(federation: Federation, run: int) -> IntArray:
    """The base rows of all clients that exist in a run and are not forgotten."""
    exists = np.ones(len(federation.base), dtype=bool)
    if federation.audit.client_in is not None:
        exists &= federation.audit.client_in[run]
    exists[list(federation.absent_clients)] = False
    return np.concatenate(
        [federation.base[0][:0], *(rows for rows, is_there in zip(federation.base, exists, strict=True) if is_there)]
    )


def hybrids(model: Params, source: Params, blocks: Sequence[Sequence[str]]) -> list[Params]:
    """The model itself, the model with each one of its blocks from the source, and with all of them.

    >>> [one["b"] for one in hybrids({"a": 1, "b": 2}, {"a": 10, "b": 20}, [["a"], ["b"]])]
    [2, 2, 20, 20]
    """
    return [{**model, **{name: source[name] for name in names}} for names in ((), *_parts(blocks))]


def _parts(blocks: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """The entries of each block, and those of all of them."""
    return [*blocks, [name for block in blocks for name in block]]


def _blocks(federation: Federation) -> tuple[tuple[str, ...], ...]:
    import torch

    from fedmem.training.blocks import parameter_blocks

    sample = torch.from_numpy(np.array(federation.store.inputs[:1]))
    return parameter_blocks(federation.model, sample, federation.initial)


def _sources(context: SignalContext, position: int, source: str) -> Iterator[tuple[IntArray, Params]]:
    """Models that blocks are taken from, each with the examples that are asked about its hybrids."""
    transition = context.transitions[position]
    rows = np.flatnonzero(context.is_owner()[position])
    if transition.round == 0 or not len(rows):
        return
    if source == "other_level":
        for other in context.counterparts(position):
            theirs = rows
            if transition.level == "global":
                theirs = rows[context.federation.audit.owner[rows] == other.client]
            if len(theirs):
                yield theirs, other.kept
        return
    model: Params | None = transition.before
    if source == "initial":
        model = context.federation.initial_of(transition.run)
    elif source.startswith("round "):
        model = context.earlier(position, int(source.removeprefix("round ")))
    if model is not None:
        yield rows, model
