"""The claims about memorisation and over-fitting, chosen on seed 0, which is in no table."""

from __future__ import annotations

from experiments.overfitting.analysis import GAP, LAST, LOSS, LOWEST, MEMORY
from fedmem.studies.claims import Claim

EARLY = "8"
"""A round in which the test loss still falls on both data sets."""

_KINDS = {"mislabelled": "wrong labels", "random_pattern": "images of noise", "typical": "ordinary rows"}


def _memory_of(kind: str, at: str = LOWEST, arm: str = "plain") -> dict[str, str]:
    """The columns of the memorisation of one kind."""
    return {"what": MEMORY, "kind": kind, "at": at, "arm": arm}


CLAIMS = (
    *(
        Claim(words=f"{words} are memorised where the test loss is lowest", more=_memory_of(kind))
        for kind, words in _KINDS.items()
    ),
    *(
        Claim(
            words=f"{words} are memorised more than the generalisation gap where the test loss is lowest",
            more=_memory_of(kind),
            less={"what": GAP, "kind": ""},
        )
        for kind, words in _KINDS.items()
    ),
    Claim(
        words="the test loss still falls after round 8",
        more={"what": LOSS, "kind": "", "at": EARLY, "arm": "plain"},
        less={"at": LOWEST},
    ),
    *(
        Claim(words=f"{words} are memorised in round 8 already", more=_memory_of(kind, EARLY))
        for kind, words in _KINDS.items()
    ),
    Claim(
        words="weight decay lowers the generalisation gap in the last round",
        more={"what": GAP, "kind": "", "at": LAST, "arm": "plain"},
        less={"arm": "weight decay"},
    ),
    Claim(
        words="with weight decay, wrong labels are still memorised in the last round",
        more=_memory_of("mislabelled", LAST, "weight decay"),
    ),
)
