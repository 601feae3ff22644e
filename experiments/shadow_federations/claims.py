"""The claims about shadow federations, chosen on seed 0, which is in no table."""

from __future__ import annotations

from experiments.shadow_federations.analysis import BOUND, GUESSING, IDENTIFIED
from fedmem.studies.claims import Claim

MARGIN = 0.1
"""How far above chance a share still counts as near guessing."""


def _of(arm: str, what: str = IDENTIFIED) -> dict[str, str]:
    """The columns of one quantity of an arm."""
    return {"arm": arm, "what": what}


def _above_guessing(arm: str, words: str) -> Claim:
    return Claim(words=f"{words}, rows are identified", more=_of(arm), less=_of(arm, GUESSING))


def _near_guessing(arm: str, words: str) -> Claim:
    words = f"{words}, the share is less than .1 above chance"
    return Claim(words=words, more=_of(arm, GUESSING), less=_of(arm), null=-MARGIN)


CLAIMS = (
    _above_guessing("known", "with known weights and steps on all rows"),
    _above_guessing("known small batches", "with known batches of 16"),
    _above_guessing("unknown small batches", "with unknown batches of 16"),
    _near_guessing("unknown small batches", "with unknown batches of 16"),
    Claim(
        words="known batches of 16 show more than unknown ones",
        more=_of("known small batches"),
        less=_of("unknown small batches"),
    ),
    _near_guessing("unknown weights", "with unknown weights"),
    _near_guessing("unknown weights, known small batches", "with unknown weights and known batches of 16"),
    _above_guessing("epsilon 1000", "at epsilon 1000"),
    Claim(words="epsilon 10 hides more than 1000", more=_of("epsilon 1000"), less=_of("epsilon 10")),
    _near_guessing("epsilon 10", "at epsilon 10"),
    _near_guessing("epsilon 1", "at epsilon 1"),
    *(
        Claim(
            words=f"at epsilon {epsilon}, the share is below the bound",
            more=_of(f"epsilon {epsilon}", BOUND),
            less=_of(f"epsilon {epsilon}"),
        )
        for epsilon in (10, 1)
    ),
)
