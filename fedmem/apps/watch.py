"""Measurement for a Flower app: the outputs of its local and global models on examples that the user chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fedmem.apps.array_names import app_mismatch, names_in_model, rename_arrays
from fedmem.apps.differences import summarise
from fedmem.apps.ownership import IDENTITY, MemberOf, Ownership
from fedmem.apps.plain_logits import evaluation_copy, input_array, require_logits
from fedmem.contracts.arrays import Params
from fedmem.contracts.audit_set import AuditSet, References
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Evidence, Transition
from fedmem.contracts.watcher import OnError, checked_on_error
from fedmem.observation.evidence import evidence_of, rank_of

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from fedmem.training.one_by_one import OneByOne

_VALUES = ("loss", "margin", "correct", "exposure")

Inputs = ArrayLike | Mapping[str, ArrayLike]
"""Inputs of a set: an array, or what a tokenizer returns."""

_LOGITS = 1 << 25
"""Logits of one forward pass, at most, where the classes or the vocabulary are many."""


class Watch:
    """A watcher for `Observed` that records loss, margin, correctness and exposure, client by client and globally.

    A single run has no control runs, so nothing here is memorisation: a low loss may be an easy example. Exposure
    compares each example with `references` that no model trained on. It is valid where references and examples are
    drawn from the same generator, and the choice between them was random. Several runs that differ in random inclusion
    give memorisation: `combine_runs`.

    Args:
        model: The architecture; its parameter names have to be those that the app sends. A list of arrays
            without names is read by its order, and an adapter by the names that peft saves. Give a model of
            `transformers` or `peft` as it is: of an output with `logits`, these are read.
        examples: Name -> (inputs, targets), for example the canaries that one client was given. Whole numbers reach
            the model as int64, others as float32. Inputs may be what a tokenizer returns, `input_ids` with their
            `attention_mask`; -1 also means no token. Of next tokens, targets (n, l) are the tokens that follow, -1
            where nothing is asked.
        references: Name -> inputs of fresh members of the same family, for the exposure of that set. Where the targets
            are next tokens, it is (inputs, targets).
        member_of: Name -> the client that holds that set. It is one client, a client for each example (None: nobody),
            or an assignment of `assign_canaries`. Clients are named by the identity that `frame` has; 0 and "0" are the
            same client.
        every: Number of rounds between two observed rounds; round 0 is the initial model.
        on_error: `raise` ends the training with the error; `warn` warns once, ends the watching, and lets the training
            go on. `frame` then has what was seen before.

    Guarantees:

    - reads copies only; the app's result does not change;
    - models are read in evaluation mode: without dropout, and with the running statistics that the app's arrays have;
    - names and shapes of the app's initial arrays are compared with the model before round 1. A difference, missing
      running statistics, and later messages that lack a parameter are errors (`ValueError`, `RunError`). They name
      the parameter or statistic. Statistics of layers in evaluation mode may be missing: those of `model` are then
      taken to be the clients';
    - the model reads a few rows of each set before round 1. A failure, other logits than the targets need, and rows
      that seem padded without a mask are errors (`ValueError`).

    >>> from torch import nn
    >>> watch = Watch(model=nn.Linear(2, 2), examples={"mine": (np.zeros((1, 2), np.float32), [0])})
    >>> watch.observes_round(3)
    True
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        examples: Mapping[str, tuple[Inputs, ArrayLike]],
        references: Mapping[str, Inputs | tuple[Inputs, ArrayLike]] | None = None,
        member_of: Mapping[str, MemberOf] | None = None,
        every: int = 1,
        on_error: OnError = "raise",
    ) -> None:
        self.on_error = checked_on_error(on_error)
        self._model = model
        self._sets = {name: _examples(name, *pair) for name, pair in examples.items()}
        unknown = sorted(set(references or ()) - set(self._sets))
        if unknown:
            raise ValueError(f"references for {unknown[0]!r}, but examples has only {sorted(self._sets)}")
        fresh = references or {}
        self._references = {name: _references(name, self._sets[name], rows) for name, rows in fresh.items()}
        self._masks = {f"examples[{name!r}]": isinstance(pair[0], Mapping) for name, pair in examples.items()}
        for name, rows in fresh.items():
            self._masks[f"references[{name!r}]"] = isinstance(rows[0] if isinstance(rows, tuple) else rows, Mapping)
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self._every = every
        self._names: Mapping[str, str] | None = None
        self._ownership = Ownership({name: len(rows) for name, rows in self._sets.items()}, member_of)
        self._contents = {name: _contents(rows) for name, rows in self._sets.items()}
        self._rows: list[dict[str, Any]] = []

    @property
    def named_clients(self) -> tuple[str, ...]:
        """The clients of `member_of`, as text."""
        return self._ownership.named_clients

    def observes_round(self, round_number: int) -> bool:
        """Every `every` rounds."""
        return round_number % self._every == 0

    def begin(self, initial: Params) -> None:
        """Compare the app's initial arrays with the model. Errors: `ValueError`."""
        self._names = names_in_model(self._model, initial)
        if reason := app_mismatch(self._model, initial):
            raise ValueError(reason)
        _ = self._executor

    @cached_property
    def _executor(self) -> OneByOne:
        """Reads models in evaluation mode, in a network of its own, which is tried on rows of each set."""
        from fedmem.clients.sgd import Sgd
        from fedmem.training.executor import FORWARD_ROWS, Settings
        from fedmem.training.one_by_one import OneByOne

        network, sizes = evaluation_copy(self._model), [1]
        for name, rows in self._sets.items():
            labels = [(f"examples[{name!r}]", rows)]
            if references := self._references.get(name):
                fresh = references.inputs
                targets = np.zeros(len(fresh), dtype=np.int64) if references.targets is None else references.targets
                fresh_rows = Examples(inputs=fresh, targets=targets, ids=np.arange(len(fresh)))
                labels.append((f"references[{name!r}]", fresh_rows))
            sizes += [require_logits(network, label, part, has_mask=self._masks[label]) for label, part in labels]
        settings = Settings(forward_rows=max(1, min(FORWARD_ROWS, _LOGITS // max(sizes))))
        return OneByOne(network, Sgd(), next(iter(self._sets.values())), settings)

    def see(self, transitions: Sequence[Transition]) -> None:
        """Record the evidence of these models."""
        if not transitions:
            return
        self._ownership.see(transitions)
        models = [self._model_of(transition.kept) for transition in transitions]
        # Node ids have 64 bits; what is asked of the models needs only their order.
        places = [replace(transition, client=t) for t, transition in enumerate(transitions)]
        for name, examples in self._sets.items():
            evidence = evidence_of(models, places, name, examples, self._executor)
            exposure = self._exposure(name, models, places, examples, evidence)
            count = len(self._references[name].inputs) if name in self._references else 0
            for t, transition in enumerate(transitions):
                for j, labels in enumerate(self._ownership.labels(transition, name)):
                    self._rows.append(
                        {
                            **labels,
                            "round": transition.round,
                            "level": transition.level,
                            "set": name,
                            "subject": j,
                            "references": count,
                            "content": self._contents[name][j],
                            "loss": evidence.loss[t, j],
                            "margin": evidence.margin[t, j],
                            "correct": evidence.correct[t, j].item(),
                            "exposure": exposure[t, j],
                        }
                    )

    def _model_of(self, params: Params) -> Params:
        """A model of the app under the names of the network."""
        if self._names is None:
            self._names = names_in_model(self._model, params)
        return rename_arrays(params, self._names)

    def _exposure(
        self,
        name: str,
        models: Sequence[Any],
        transitions: Sequence[Transition],
        examples: Examples,
        evidence: Evidence,
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Bits, NaN without references; see Carlini et al. (2019)."""
        if name not in self._references:
            return np.full(evidence.shape, np.nan)
        nobody = np.full(len(examples), -1, dtype=np.int32)
        audit = AuditSet(
            examples=examples,
            kind=np.array([name] * len(examples)),
            role=np.array(["canary"] * len(examples)),
            owner=nobody,
            copies=np.ones(len(examples), dtype=np.int32),
            is_in=np.ones((1, len(examples)), dtype=bool),
        )
        ranks = rank_of(models, transitions, self._references[name], audit, evidence, self._executor)
        rank = np.where(ranks.less < 0, np.nan, 1 + ranks.less + ranks.ties / 2)
        return np.asarray(np.log2((ranks.count + 1) / rank))

    def frame(self) -> pd.DataFrame:
        """Long format, one row for each observed model and example.

        - `round`, `level`, `set`, and `subject`, the position of the example in its set;
        - `client`: the client that the model is of, the same in all watchers. It is a whole number, or text where a
          client has a name; -1 or empty text at level global.
        - `identity`: what the client is named by. It is `partition-id` (or another entry that the client returns),
          `clients` (the mapping given to `Observed`), `trace`, or `node`, the id that Flower drew.
        - `node`: that id as text;
        - `loss` (nats), `margin`, `correct`, `exposure` (bits);
        - with `member_of` also `owner`, the client that the example belongs to. `included` says whether anybody trains
          on it in this run. `holds` says whether the client of the row does (at level global, whether anybody does).
          Both are of the whole run, and so also of round 0, in which nothing is trained yet. `owner_seen` says whether
          the owner has taken part in an observed round so far. Also the number of `references`, and `content`, a hash
          of the example.

        Warns of clients of `member_of` that never took part in an observed round.
        """
        held = (*self._ownership.columns, "references", "content") if self._ownership.columns else ()
        return self._ownership.frame(self._rows, ("round", "level", *IDENTITY, "set", "subject", *_VALUES, *held))

    def summary(self) -> pd.DataFrame:
        """Values of the owners' models minus those of others, and values of the aggregate, round by round.

        See `fedmem.apps.differences.summarise`: the aggregate stands in `aggregate, in`, `aggregate, out` and `null`.

        A client that holds the examples differs from the others also in its other data. No coin decided which client
        holds them, so a difference between clients is not memorisation. Errors: `ValueError` without `member_of`.
        """
        if not self._ownership.columns:
            raise ValueError(
                "nobody is known to hold anything; give Watch(member_of={'" + next(iter(self._sets)) + "': 0})"
            )
        return summarise(self.frame(), _VALUES)


def _contents(examples: Examples) -> list[str]:
    """A hash of each example, by which runs are compared."""
    rows = zip(examples.inputs, examples.targets, strict=True)
    return [sha256(np.ascontiguousarray(row).tobytes() + target.tobytes()).hexdigest()[:12] for row, target in rows]


def _examples(name: str, inputs: Inputs, targets: ArrayLike) -> Examples:
    return _rows(f"examples[{name!r}]", inputs, targets)


def _rows(place: str, inputs: Inputs, targets: ArrayLike) -> Examples:
    rows = input_array(place, inputs)
    labels = np.asarray(targets, dtype=np.int64)
    if len(rows) != len(labels) or not len(rows):
        raise ValueError(f"{place}: {len(rows)} inputs and {len(labels)} targets; both must be alike and not empty")
    return Examples(inputs=rows, targets=labels, ids=np.arange(len(rows)))


def _references(name: str, examples: Examples, rows: Inputs | tuple[Inputs, ArrayLike]) -> References:
    """Fresh members, with targets of their own where those of the set are next tokens."""
    place = f"references[{name!r}]"
    if not examples.several_targets:
        values: Any = rows
        fresh = input_array(place, values)
        if not len(fresh):
            raise ValueError(f"{place}: holds no inputs; give one at least, or leave it out")
        return References(family=name, inputs=fresh)
    if not isinstance(rows, tuple) or len(rows) != 2:
        raise ValueError(f"{place}: targets are next tokens, so that references need their own; give (inputs, targets)")
    pair = _rows(place, *rows)
    return References(family=name, inputs=pair.inputs, targets=pair.targets)
