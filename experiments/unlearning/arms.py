"""The federations, what each forgets, and the methods with their constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PILOT = 100
"""The seed on which constants were chosen. It is none of those that are reported."""

CLIENT = 2
"""The client that forgets, and that leaves in the federation in which one does."""

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

_ATTACKS = "{kind: membership, attack: {kind: lira}}, {kind: membership, attack: {kind: attack_p}}"


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """One federation and what is forgotten in it.

    Attributes:
        file: The scenario.
        trained: Rounds of the first training, and of the phase that trains again.
        rounds: Rounds of the phase of every other method.
        forget: What the phase forgets.
        methods: The methods that are compared, with their constants.
        estimators: The estimators of the phase.
    """

    file: str
    trained: int
    rounds: int
    forget: str
    methods: Mapping[str, str]
    estimators: str


FEDERATIONS: Mapping[str, Forgetting] = {
    "examples": Forgetting(
        file="scenario.yaml",
        trained=24,
        rounds=5,
        forget="{kinds: [forget]}",
        methods=METHODS,
        estimators=f"[{{kind: memorisation}}, {{kind: unlearning}}, {_ATTACKS}]",
    ),
    "client": Forgetting(
        file="client.yaml",
        trained=12,
        rounds=5,
        forget=f"{{clients: [{CLIENT}]}}",
        methods={name: text for name, text in METHODS.items() if name != "neg_grad_plus"},
        estimators="[{kind: client_influence}]",
    ),
    "texts": Forgetting(
        file="texts.yaml",
        trained=6,
        rounds=3,
        forget="{kinds: [forget]}",
        methods={
            "no_op": "",
            "fine_tune": "{kind: fine_tune}",
            "gradient_ascent": "{kind: gradient_ascent, steps: 20, stop_at: steps}",
            "retrain": "{kind: retrain}",
        },
        estimators=f"[{{kind: memorisation}}, {{kind: unlearning}}, {{kind: exposure}}, {_ATTACKS}]",
    ),
}
"""The federations: wrong labels of digits, a whole client with digits, and secrets in texts."""


def phase_of(method: str, federation: str = "examples") -> str:
    """The setting with the phase of a method.

    >>> phase_of("no_op").partition(", estimators")[0]
    'then=[{rounds: 5, observe: {every: 5, test: {levels: [global]}}'
    >>> phase_of("retrain", "client").partition(", forget")[2].partition(", estimators")[0]
    ': {clients: [2]}, unlearner: {kind: retrain}'
    """
    one = FEDERATIONS[federation]
    rounds = one.trained if method == "retrain" else one.rounds
    parts = [f"rounds: {rounds}", f"observe: {{every: {rounds}, test: {{levels: [global]}}}}"]
    if one.methods[method]:
        parts += [f"forget: {one.forget}", f"unlearner: {one.methods[method]}"]
    return f"then=[{{{', '.join([*parts, f'estimators: {one.estimators}'])}}}]"
