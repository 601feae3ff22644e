"""Measurement for a Flower app: the outputs of its local and global models on examples that the user chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fedmem.contracts.arrays import Params
from fedmem.contracts.audit_set import AuditSet, References
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Evidence, Transition
from fedmem.contracts.watcher import OnError, checked_on_error
from fedmem.observation.evidence import evidence_of, rank_of
from fedmem.training.model_checks import mismatch, running_statistics

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


_LARGEST_NUMBER = 2**31 - 1
"""Larger numbers of clients are node ids of Flower."""


class Watch:
    """A watcher for `Observed` that records loss, margin, correctness and exposure, client by client and globally.

    There is no bank behind a single run, so nothing here is memorisation: a low loss may be an easy example. Exposure
    compares each example with `references` that no model trained on. It is valid where references and examples are
    drawn from the same generator, and the choice between them was random.

    Args:
        model: the architecture; its parameter names have to be those that the app sends.
        examples: name -> (inputs, targets), for example the canaries that one client was given.
        references: name -> inputs of fresh members of the same family, for the exposure of that set.
        every: number of rounds between two observed rounds; round 0 is the initial model.
        on_error: `raise` ends the training with the error; `warn` warns once, ends the watching, and lets the training
            go on. `frame` then has what was seen before.

    Guarantees:

    - reads copies only; the app's result does not change;
    - names and shapes of the app's initial arrays are compared with the model before round 1. A difference, a layer
      with running statistics, and messages that later lack a parameter are errors (`ValueError`, `RunError`) that name
      the parameter or layer.

    >>> from torch import nn
    >>> watch = Watch(model=nn.Linear(2, 2), examples={"mine": (np.zeros((1, 2), np.float32), [0])})
    >>> watch.observes_round(3)
    True
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        examples: Mapping[str, tuple[ArrayLike, ArrayLike]],
        references: Mapping[str, ArrayLike] | None = None,
        every: int = 1,
        on_error: OnError = "raise",
    ) -> None:
        from fedmem.clients.sgd import Sgd
        from fedmem.training.one_by_one import OneByOne

        self.on_error = checked_on_error(on_error)
        self._model = model
        self._sets = {name: _examples(name, *pair) for name, pair in examples.items()}
        self._references = {
            name: References(family=name, inputs=np.asarray(inputs, dtype=np.float32))
            for name, inputs in (references or {}).items()
        }
        unknown = sorted(set(self._references) - set(self._sets))
        if unknown:
            raise ValueError(f"references for {unknown[0]!r}, but examples has only {sorted(self._sets)}")
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self._every = every
        self._executor = OneByOne(model, Sgd(), next(iter(self._sets.values())))
        self._rows: list[dict[str, Any]] = []
        self._nodes: dict[int, int] = {}

    def observes_round(self, round_number: int) -> bool:
        """Every `every` rounds."""
        return round_number % self._every == 0

    def begin(self, initial: Params) -> None:
        """Compare the app's initial arrays with the model. Errors: `ValueError`."""
        if reason := mismatch(self._model, initial):
            raise ValueError(reason)
        if (layer := running_statistics(self._model)) is not None:
            raise ValueError(
                f"the layer {layer!r} has running statistics, which are no parameters, so that what the app's models "
                "predict does not follow from their parameters; use GroupNorm or LayerNorm"
            )

    def see(self, transitions: Sequence[Transition]) -> None:
        """Record the evidence of these models."""
        if not transitions:
            return
        models = [transition.kept for transition in transitions]
        # Node ids have 64 bits; what is asked of the models needs only their order.
        places = [replace(transition, client=t) for t, transition in enumerate(transitions)]
        for name, examples in self._sets.items():
            evidence = evidence_of(models, places, name, examples, self._executor)
            exposure = self._exposure(name, models, places, examples, evidence)
            for t, transition in enumerate(transitions):
                for j in range(len(examples)):
                    self._rows.append(
                        {
                            "round": transition.round,
                            "level": transition.level,
                            "client": self._number(transition.client),
                            "node": str(transition.client) if transition.client > _LARGEST_NUMBER else "",
                            "set": name,
                            "subject": j,
                            "loss": evidence.loss[t, j],
                            "margin": evidence.margin[t, j],
                            "correct": evidence.correct[t, j].item(),
                            "exposure": exposure[t, j],
                        }
                    )

    def _number(self, client: int) -> int:
        """Clients that do not say who they are have their node id: count those in the order in which they are met."""
        return client if client <= _LARGEST_NUMBER else self._nodes.setdefault(client, len(self._nodes))

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
            return np.full(evidence.loss.shape, np.nan)
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
        """Long format: round, level, client, node, set, subject, loss, margin, correct, exposure (bits).

        `client` is what the client says of itself in its reply, in a `ConfigRecord` named `trace` with the entry
        `client`. Clients that say nothing are numbered in the order of their node ids, and `node` is the id as text.
        """
        import pandas as pd

        columns = ["round", "level", "client", "node", "set", "subject", "loss", "margin", "correct", "exposure"]
        return pd.DataFrame(self._rows, columns=columns)


def _examples(name: str, inputs: ArrayLike, targets: ArrayLike) -> Examples:
    rows = np.asarray(inputs, dtype=np.float32)
    labels = np.asarray(targets, dtype=np.int64)
    if len(rows) != len(labels) or not len(rows):
        raise ValueError(
            f"examples[{name!r}]: {len(rows)} inputs and {len(labels)} targets; both must be alike and not empty"
        )
    return Examples(inputs=rows, targets=labels, ids=np.arange(len(rows)))
