"""Tests of `fedmem/probes/_victims.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.attack import Reconstruction
from fedmem.modalities.numbers import psnr, squared_errors
from fedmem.probes._victims import score
from fedmem.probes.leakage import Leakage
from tests.lab import Lab, digits, federation
from tests.probes.leakage_helpers import QUICK, Answers


def test_many_real_images_are_a_prior_and_not_a_success() -> None:
    """Whoever offers many digits matches some by chance; the population, paired in the same way, cancels that."""
    lab = Lab()
    local, size = lab.local(runs=(0, 1)), len(lab.rows(0, 0))
    others = digits().take(np.arange(900, 900 + size)).inputs
    readings = [r for _, r in Leakage(attack=Answers(others)).observe(local, lab) if r.subject]
    margins = [r.value for r in readings if r.metric == "margin"]
    assert np.mean(margins) < 0
    # by symmetry the population alone would be beaten half of the time
    assert np.mean(np.array(margins) > 0) < 0.5


def test_copies_count_with_the_best() -> None:
    lab = Lab(federation=federation(copies=2))
    local = lab.local(runs=(0,), clients=(0,))
    rows, start = lab.rows(0, 0), lab.federation.audit_start
    images = lab.federation.store.inputs[rows].copy()
    twice = np.flatnonzero(rows == start)
    assert len(twice) == 2
    images[twice[0]] = 0.0
    readings = Leakage(attack=Answers(images)).observe(local, lab)
    values = [
        r.value for _, r in readings if r.subject == "0" and r.metric == "psnr" and r.labels.get("view") == "message"
    ]
    assert values == [100.0]


def test_the_sheet_is_kept_and_bounded() -> None:
    lab = Lab()
    local = lab.local(runs=(0, 1))
    Leakage(attack=QUICK).observe(local, lab)
    prefix = "round_2/local/message/run_1"
    kinds = lab.kept[f"{prefix}/kind"].tolist()
    assert max(kinds.count(kind) for kind in kinds) <= 4
    for key in ("original", "reconstruction", "prior"):
        assert lab.kept[f"{prefix}/{key}"].shape == (len(kinds), 1, 8, 8)
    assert lab.kept[f"{prefix}/labels"].dtype.kind == "U"
    own = squared_errors(lab.kept[f"{prefix}/reconstruction"], lab.kept[f"{prefix}/original"]).diagonal()
    assert psnr(own) == pytest.approx(lab.kept[f"{prefix}/psnr"])
    prior = squared_errors(lab.kept[f"{prefix}/prior"], lab.kept[f"{prefix}/original"]).diagonal()
    assert psnr(prior) == pytest.approx(lab.kept[f"{prefix}/prior_psnr"])


def test_victim_as_near_as_a_reference_is_not_identified() -> None:
    """The rebuilt image lies midway between the canary and a reference: a tie, which tells nobody from anybody."""
    lab, built = Lab(), federation()
    (case,) = Leakage(attack=QUICK)._cases("message", lab.local(runs=(0,), clients=(0,)), lab)
    subject = next(s for s in case.victims.tolist() if built.audit.kind[s] == "noise")
    original = built.audit.examples.inputs[subject]

    def identified(towards: float) -> float:
        twin = original.copy()
        twin[0, :4] = 1 - twin[0, :4]
        lab.federation = replace(built, references=(replace(built.references[0], inputs=twin[None]),))
        image = ((1 - towards) * original + towards * twin)[None].astype(np.float32)
        answer = Reconstruction(inputs=image, labels=np.zeros(1, dtype=np.int64), distance=0.0)
        (victim,) = [v for v in score(replace(case, controls={}), answer, lab) if v.subject == subject]
        return victim.identified

    assert [identified(towards) for towards in (0.25, 0.5, 0.75)] == [1.0, 0.0, 0.0]
