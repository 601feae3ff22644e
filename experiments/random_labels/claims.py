"""The claims about random labels, chosen on seed 0, which is in no table."""

from __future__ import annotations

from experiments.random_labels.analysis import FITTED, MEMORY
from fedmem.studies.claims import Claim

LAST = 12
"""The round that claims are about, the last."""

_OF_RANDOM: dict[str, str | int] = {"what": MEMORY, "kind": "random_label", "round": LAST}
_TWO, _ALL, _NOISE = "two clients, 64 units", "all clients, 64 units", "all clients, images of noise"


def _first_round_of(kind: str) -> dict[str, str | int]:
    """The share of right answers in the first round, among examples of a kind that were trained on."""
    return {"what": FITTED, "kind": kind, "round": 1}


CLAIMS = (
    Claim(words="random labels at two clients are memorised", more={**_OF_RANDOM, "arm": _TWO}),
    Claim(words="random labels at all clients are memorised", more={**_OF_RANDOM, "arm": _ALL}),
    Claim(
        words="most random labels at two clients are fitted: more than half are answered",
        more={**_OF_RANDOM, "what": FITTED, "arm": _TWO},
        null=0.5,
    ),
    Claim(
        words="random labels at two clients are memorised less in the aggregate than at their owners",
        more={**_OF_RANDOM, "arm": _TWO, "level": "local"},
        less={"level": "global"},
        levels=("global",),
    ),
    Claim(
        words="random labels are memorised more where all clients have them than where two have",
        more={**_OF_RANDOM, "arm": _ALL},
        less={"arm": _TWO},
    ),
    Claim(
        words="random labels at two clients: 256 units memorise more than 8",
        more={**_OF_RANDOM, "arm": "two clients, 256 units"},
        less={"arm": "two clients, 8 units"},
    ),
    Claim(
        words="random labels at all clients: 256 units memorise more than 8",
        more={**_OF_RANDOM, "arm": "all clients, 256 units"},
        less={"arm": "all clients, 8 units"},
    ),
    Claim(
        words="true labels: 256 units memorise more than 8",
        more={**_OF_RANDOM, "kind": "true_label", "arm": "two clients, 256 units"},
        less={"arm": "two clients, 8 units"},
    ),
    Claim(
        words="true labels are fitted faster than random ones: more are answered in the first round",
        more={**_first_round_of("true_label"), "arm": _TWO},
        less=_first_round_of("random_label"),
    ),
    Claim(
        words="images of noise are memorised more than real images with random labels",
        more={**_OF_RANDOM, "arm": _NOISE},
        less={"arm": _ALL},
    ),
)
