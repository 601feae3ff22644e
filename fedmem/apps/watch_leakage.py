"""Leakage in a Flower app of one's own: attacks on what its clients really send, and on its aggregates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fedmem.apps.array_names import app_mismatch, names_in_model, rename_arrays
from fedmem.apps.attack import Known, target_of
from fedmem.apps.attack_scores import Images, scores
from fedmem.apps.differences import summarise
from fedmem.apps.ownership import IDENTITY, MemberOf, Ownership
from fedmem.contracts.arrays import Params
from fedmem.contracts.attack import ReconstructionAttack
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import Level
from fedmem.contracts.validation_of_measures import reconstruct
from fedmem.contracts.watcher import OnError, checked_on_error
from fedmem.seeding import stream

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


COLUMNS = (
    *("round", "level", *IDENTITY, "clients", "set", "subject"),
    *("identified", "margin", "psnr", "distance", "gallery", "knows"),
)


class WatchLeakage:
    """A watcher for `Observed` that attacks updates and measures how closely chosen examples are reconstructed.

    Level `local` attacks what one client sent. Level `global` attacks the step of the server, as the work of the whole
    cohort.

    Args:
        model: The architecture; its parameter names have to be those that the app sends.
        attack: How inputs are reconstructed, such as `InvertingGradients(steps=300)`.
        known: Facts about the clients' work that the adversary knows, as for `fedmem.attack`; `num_images` is set by
            `images`.
        examples: Name -> inputs `(n, *shape)` in [0, 1] that were planted with one client.
        references: Name -> inputs of the same distribution that are planted nowhere: the gallery of that set.
        member_of: Name -> the client that holds that set, as in `Watch`.
        rounds: Which rounds to attack; declare them before the run, not after it.
        levels: Where to attack.
        images: How many images to reconstruct from an update of so many examples, by default as many, up to 64.
        steps: Local steps of a client with so many examples, where they differ; else those of `known`.
        seed: Seed of the attack's starts.
        on_error: `raise` ends the training with the error; `warn` warns once, ends the watching, and lets the training
            go on. `frame` then has what was seen before.

    Guarantees:

    - reads copies only; the app's result does not change;
    - names and shapes of the app's initial arrays are compared with the model before round 1, and so is whether the
      model can be attacked. Errors are `ValueError` and `TargetError`;
    - the choice of attacked clients and the effort do not depend on what is found.

    Every example is scored against the update of every client. The clients that do not hold it are the control:
    `summary` has the owners' scores minus theirs.

    >>> from torch import nn
    >>> from fedmem.attacks.inverting_gradients import InvertingGradients
    >>> known = Known(input_shape=(4,), num_classes=3, num_images=1, lr=0.1)
    >>> mine = {"mine": np.zeros((1, 4))}
    >>> watch = WatchLeakage(
    ...     model=nn.Linear(4, 3), attack=InvertingGradients(), known=known, examples=mine, rounds=[1]
    ... )
    >>> watch.observes_round(1), watch.observes_round(2)
    (True, False)
    """

    def __init__(  # noqa: PLR0913 - options for users, all by name
        self,
        *,
        model: nn.Module,
        attack: ReconstructionAttack,
        known: Known,
        examples: Mapping[str, ArrayLike],
        rounds: Sequence[int],
        references: Mapping[str, ArrayLike] | None = None,
        member_of: Mapping[str, MemberOf] | None = None,
        levels: Sequence[Level] = ("local", "global"),
        images: Callable[[int], int] = lambda count: min(count, 64),
        steps: Callable[[int], int] | None = None,
        seed: int = 0,
        on_error: OnError = "raise",
    ) -> None:
        self.on_error = checked_on_error(on_error)
        self._model, self._attack, self._knowledge, self._seed = model, attack, known, seed
        self._rounds, self._levels, self._images, self._steps = frozenset(rounds), tuple(levels), images, steps
        self._sets = {name: _rows(name, inputs, known) for name, inputs in examples.items()}
        self._references = {name: _rows(name, inputs, known) for name, inputs in (references or {}).items()}
        unknown = sorted(set(self._references) - set(self._sets))
        if unknown:
            raise ValueError(f"references for {unknown[0]!r}, but examples has only {sorted(self._sets)}")
        if not self._sets:
            raise ValueError("examples is empty; name at least one set of inputs to look for")
        self._ownership = Ownership({name: len(rows) for name, rows in self._sets.items()}, member_of)
        self._rows: list[dict[str, Any]] = []
        self._names: Mapping[str, str] | None = None

    @property
    def named_clients(self) -> tuple[str, ...]:
        """The clients of `member_of`, as text."""
        return self._ownership.named_clients

    def observes_round(self, round_number: int) -> bool:
        """The declared rounds."""
        return round_number in self._rounds

    def begin(self, initial: Params) -> None:
        """Compare the app's initial arrays with the model. Errors: `ValueError`, `TargetError`."""
        from fedmem.attacks._targets import validate_targets

        self._names = names_in_model(self._model, initial)
        arrays = rename_arrays(initial, self._names)
        if reason := app_mismatch(self._model, initial):
            raise ValueError(reason)
        validate_targets([target_of(arrays, arrays, self._model, self._knowledge)])

    def see(self, transitions: Sequence[Transition]) -> None:
        """Attack these updates, all of one level at once."""
        self._ownership.see(transitions)
        attacked = [t for t in transitions if t.level in self._levels and t.num_examples > 0]
        if not attacked:
            return
        targets = []
        for transition in attacked:
            count = max(len(transition.clients), 1)
            steps = self._knowledge.steps if self._steps is None else self._steps(transition.num_examples // count)
            knowledge = replace(
                self._knowledge,
                num_images=self._images(transition.num_examples),
                clients=count,
                steps=steps,
                labels=None,
                in_order=False,
            )
            if self._names is None:
                self._names = names_in_model(self._model, transition.before)
            before, sent = (rename_arrays(part, self._names) for part in (transition.before, transition.sent))
            targets.append(target_of(before, sent, self._model, knowledge).grant(self._attack.knows))
        # one model for all, so that they can be attacked as one stack
        targets = [replace(target, model=targets[0].model) for target in targets]
        rngs = [stream(self._seed, "attack", round_number=t.round, client=place) for place, t in enumerate(attacked)]
        for place, (transition, target, reconstruction) in enumerate(
            zip(attacked, targets, reconstruct(self._attack, targets, rngs), strict=True)
        ):
            for name, rows in self._sets.items():
                gallery = self._references.get(name, rows[:0])
                rng = stream(self._seed, f"attack gallery {name}", round_number=transition.round, client=place)
                results = scores(reconstruction.inputs, rows, gallery, rng)
                labels = self._ownership.labels(transition, name)
                for subject, (score, label) in enumerate(zip(results, labels, strict=True)):
                    self._rows.append(
                        {
                            **label,
                            "round": transition.round,
                            "level": transition.level,
                            "clients": target.clients,
                            "set": name,
                            "subject": subject,
                            "identified": score.identified,
                            "margin": score.margin,
                            "psnr": score.psnr,
                            "distance": reconstruction.distance,
                            "gallery": len(gallery),
                            "knows": target.knows,
                        }
                    )

    def frame(self) -> pd.DataFrame:
        """Long format, one row for each attacked update and example.

        `identified` is 1 where some reconstruction is nearer to the example than any is to any reference. `margin` is
        in dB over the baseline guess, and `psnr` in dB. `distance` is the matching distance of the attack, and
        `gallery` the size of the gallery. `knows` says what the adversary knows, and `clients` of how many
        clients the update is the work. `client`, `identity`, `node` and the columns of `member_of` are those of
        `Watch.frame`.
        """
        return self._ownership.frame(self._rows, (*COLUMNS, *self._ownership.columns))

    def summary(self) -> pd.DataFrame:
        """The scores at the owners' updates minus those at others', round by round: see
        `fedmem.apps.differences.summarise`. Errors: `ValueError` without `member_of`.
        """
        if not self._ownership.columns:
            raise ValueError(
                "nobody is known to hold anything; give WatchLeakage(member_of={'" + next(iter(self._sets)) + "': 0})"
            )
        return summarise(self.frame(), ("identified", "margin", "psnr"))


def _rows(name: str, inputs: ArrayLike, known: Known) -> Images:
    rows = np.asarray(inputs, dtype=np.float32)
    if rows.shape[1:] != tuple(known.input_shape) or not len(rows):
        raise ValueError(
            f"{name!r}: inputs have shape {rows.shape}, wanted (n, {', '.join(map(str, known.input_shape))})"
        )
    if not (np.isfinite(rows).all() and rows.min() >= 0 and rows.max() <= 1):
        raise ValueError(f"{name!r}: inputs must lie in [0, 1]; give them before they are normalised")
    return rows
