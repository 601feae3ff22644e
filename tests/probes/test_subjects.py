"""Tests of `fedmem/probes/_subjects.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedmem.errors import ComponentError
from fedmem.probes._subjects import labels_by_subject, require_texts, subjects_of_kinds
from tests.lab import Lab
from tests.language import text_federation


def test_places_and_coins_of_local_and_completed_models() -> None:
    lab = Lab(federation=text_federation())
    (model,) = lab.local(runs=(1,), clients=(2,))
    about = labels_by_subject(lab.federation, model, range(6))
    assert [about[subject]["place"] for subject in range(6)] == ["others"] * 4 + ["owner"] * 2
    assert [about[subject]["coin"] for subject in range(6)] == ["out", None] * 3
    whole = replace(model, level="global", client=-1)
    assert {labels["place"] for labels in labels_by_subject(lab.federation, whole, range(6)).values()} == {None}
    completed = replace(model, level="global", client=2)
    assert list(labels_by_subject(lab.federation, completed, range(6))) == [4, 5]


def test_kinds_choose_examples_and_unknown_ones_are_refused() -> None:
    federation = text_federation()
    assert subjects_of_kinds(federation, (), np.arange(6) > 3) == [4, 5]
    assert subjects_of_kinds(federation, ("secret",), np.zeros(6, dtype=bool)) == list(range(6))
    with pytest.raises(ComponentError, match=r"no injection is called 'pin'; there are: secret"):
        subjects_of_kinds(federation, ("pin",), np.ones(6, dtype=bool))
    with pytest.raises(ComponentError, match="verbatim lets a model write texts"):
        require_texts(Lab().federation, "verbatim")
