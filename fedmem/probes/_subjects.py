"""The audit examples that a probe of texts asks for, and the labels that say whose model is asked, and in which run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedmem.contracts.arrays import BoolArray
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import NO_CLIENT, LabelValue
from fedmem.errors import ComponentError
from fedmem.probes._measures import OUT


def require_texts(federation: Federation, probe: str) -> None:
    """Errors: `ComponentError` where the data are no texts."""
    if not federation.modality.tokens:
        raise ComponentError(
            "probes",
            f"{probe} lets a model write texts, but these data have one label for each row. Use a data set of texts, "
            "or leave this probe out",
        )


def subjects_of_kinds(federation: Federation, kinds: Sequence[str], default: BoolArray) -> list[int]:
    """The audit examples of these kinds, or without kinds those of `default` (m,).

    Errors: `ComponentError` for a kind that no injection has.
    """
    audit = federation.audit
    missing = [kind for kind in kinds if kind not in audit.kinds]
    if missing:
        kinds_text = ", ".join(audit.kinds) or "none"
        raise ComponentError("probes.kinds", f"no injection is called {missing[0]!r}; there are: {kinds_text}")
    is_asked = np.isin(audit.kind, kinds) if kinds else default
    return [int(subject) for subject in np.flatnonzero(is_asked)]


def labels_by_subject(
    federation: Federation, transition: Transition, subjects: Sequence[int]
) -> dict[int, dict[str, LabelValue | None]]:
    """The labels of each of these examples that the model of a transition may be asked for.

    `place` is `owner` where the model is that of a client that holds the example, otherwise `others`; the aggregate has
    none. `coin` is `out` where the run did not train on the example. An aggregate that a client has completed with its
    own layers is asked for the examples of this client alone.
    """
    audit, run, is_aggregate = federation.audit, transition.run, transition.level == "global"
    clients = transition.clients if transition.level == "sum" else (transition.client,)
    holds = np.asarray(audit.holds(clients).any(axis=0))
    is_completed = is_aggregate and transition.client != NO_CLIENT
    return {
        subject: {
            "place": None if is_aggregate else "owner" if holds[subject] else "others",
            "coin": None if audit.is_in[run, subject] else OUT,
            "owner": int(audit.owner[subject]),
            "kind": str(audit.kind[subject]),
        }
        for subject in subjects
        if holds[subject] or not is_completed
    }
