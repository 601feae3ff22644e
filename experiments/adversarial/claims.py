"""The claims about adversarial and poisoned examples, chosen on seed 0, which is in no table."""

from __future__ import annotations

from experiments.adversarial.analysis import LIRA, MEMORY, OTHERS
from fedmem.studies.claims import Claim

_NAMES = {"adversarial": "adversarial examples", "poison": "poison"}

CLAIMS = tuple(
    claim
    for kind, name in _NAMES.items()
    for claim in (
        Claim(
            words=f"{name}: memorised more than ordinary rows",
            more={"what": MEMORY, "kind": kind},
            less={"kind": "typical"},
        ),
        Claim(
            words=f"{name}: found by LiRA more than ordinary rows",
            more={"what": LIRA, "kind": kind},
            less={"kind": "typical"},
        ),
        Claim(words=f"{name}: a row lowers right answers elsewhere", more={"what": OTHERS, "kind": kind}, sign=-1.0),
        Claim(
            words=f"{name}: a row adds fewer right answers elsewhere than an ordinary row",
            more={"what": OTHERS, "kind": "typical"},
            less={"kind": kind},
        ),
    )
)
