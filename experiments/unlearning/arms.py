"""The federations, what each forgets, and the methods with their constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PILOT = 100
"""The seed on which constants were chosen. It is none of those that are reported."""

ROUNDS: Mapping[str, int] = {"examples": 5, "client": 5, "texts": 3}
"""Rounds of the phase of each federation, for every method but retraining."""

TRAINED: Mapping[str, int] = {"examples": 24, "client": 24, "texts": 8}
"""Rounds of the first training, and of the phase that trains again."""

CLIENT = 2
"""The client that leaves, in the federation in which one does."""

METHODS: Mapping[str, str] = {
    "no_op": "",
    "fine_tune": "{kind: fine_tune}",
    "gradient_ascent": "{kind: gradient_ascent, steps: 50, stop_at: steps}",
    "neg_grad_plus": "{kind: gradient_ascent, retain: 0.5, steps: 50, stop_at: steps}",
    "pga": "{kind: pga}",
    "fed_eraser": "{kind: fed_eraser}",
    "retrain": "{kind: retrain}",
}
"""Method -> the unlearner of the phase. Without one, `no_op` trains on with all examples."""

TEXT_METHODS: Mapping[str, str] = {
    "fine_tune": "{kind: fine_tune}",
    "gradient_ascent": "{kind: gradient_ascent, steps: 20, stop_at: steps}",
    "retrain": "{kind: retrain}",
}
"""The methods on texts."""

_ATTACKS = "{kind: membership, attack: {kind: lira}}, {kind: membership, attack: {kind: attack_p}}"


@dataclass(frozen=True, kw_only=True)
class Bank:
    """One federation and what is forgotten in it.

    Attributes:
        file: The scenario.
        settings: What differs from it.
        forget: What the phase forgets.
        observe: Where the phase is observed, but for `every`.
        estimators: The estimators of the phase.
        methods: The methods that are compared.
    """

    file: str
    forget: str
    methods: Mapping[str, str]
    settings: Sequence[str] = ()
    observe: str = "test: {levels: [global]}"
    estimators: str = f"[{{kind: memorisation}}, {{kind: unlearning}}, {_ATTACKS}]"


BANKS: Mapping[str, Bank] = {
    "examples": Bank(file="scenario.yaml", forget="{kinds: [forget]}", methods=METHODS),
    "client": Bank(
        file="scenario.yaml",
        settings=(f"leave_out.clients=[{CLIENT}]", "injections[0].included=each"),
        forget=f"{{clients: [{CLIENT}]}}",
        methods={name: text for name, text in METHODS.items() if name not in ("no_op", "neg_grad_plus")},
        observe="levels: [global]",
        estimators="[{kind: memorisation}]",
    ),
    "texts": Bank(
        file="texts.yaml",
        forget="{kinds: [forget]}",
        methods=TEXT_METHODS,
        estimators=f"[{{kind: memorisation}}, {{kind: unlearning}}, {{kind: exposure}}, {_ATTACKS}]",
    ),
}
"""The federations of the experiment, by name."""


def phase_of(bank: str, method: str) -> str:
    """The setting with the phase of a method.

    >>> phase_of("texts", "fine_tune").partition(", estimators")[0]
    'then=[{rounds: 3, observe: {every: 3, test: {levels: [global]}}, forget: {kinds: [forget]}, unlearner: {kind: fine_tune}'
    """
    one = BANKS[bank]
    rounds = TRAINED[bank] if method == "retrain" else ROUNDS[bank]
    parts = [f"rounds: {rounds}", f"observe: {{every: {rounds}, {one.observe}}}"]
    if one.methods[method]:
        parts += [f"forget: {one.forget}", f"unlearner: {one.methods[method]}"]
    return f"then=[{{{', '.join([*parts, f'estimators: {one.estimators}'])}}}]"
