"""The methods with their constants, and the phase of each."""

from __future__ import annotations

from collections.abc import Mapping

PILOT = 100
"""The seed on which constants were chosen. It is none of those that are reported."""

ROUNDS, TRAINED = 5, 24
"""Rounds of the phase of each method but retraining, which has those of the first training."""

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

_ESTIMATORS = (
    "[{kind: memorisation}, {kind: unlearning}, {kind: membership, attack: {kind: lira}}, "
    "{kind: membership, attack: {kind: attack_p}}]"
)


def phase_of(method: str) -> str:
    """The setting with the phase of a method.

    >>> phase_of("no_op").partition(", estimators")[0]
    'then=[{rounds: 5, observe: {every: 5, test: {levels: [global]}}'
    """
    rounds = TRAINED if method == "retrain" else ROUNDS
    parts = [f"rounds: {rounds}", f"observe: {{every: {rounds}, test: {{levels: [global]}}}}"]
    if METHODS[method]:
        parts += ["forget: {kinds: [forget]}", f"unlearner: {METHODS[method]}"]
    return f"then=[{{{', '.join([*parts, f'estimators: {_ESTIMATORS}'])}}}]"
