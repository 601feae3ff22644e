"""Canaries ranked among every member of their space, against ranking them among these as references, one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import Params
from fedmem.contracts.audit_set import References
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import ReferenceEvidence, Transition
from fedmem.contracts.federation import Federation
from fedmem.estimators.exposure import null_mean
from fedmem.modalities.text.prefix_tree import ScoredMembers
from fedmem.modalities.text.windows import prefix_and_start
from fedmem.observation import evidence
from fedmem.observation.evidence import evidence_of, rank_of
from fedmem.training.one_by_one import OneByOne
from tests.lab import Lab
from tests.language import RUNS, VOCABULARY, Recurrent, digits, example, text_federation

SPACE = digits(3)


@pytest.fixture(scope="module")
def federation() -> Federation:
    return text_federation(SPACE)


@pytest.fixture(scope="module")
def transitions(federation: Federation) -> list[Transition]:
    """Of all clients in one run, whose models are sure of different things."""
    lab = Lab(federation=federation)
    sure: list[Params] = [dict(Recurrent(seed).named_parameters()) for seed in range(3)]
    return [replace(one, kept=params) for one, params in zip(lab.local(runs=[0]), sure, strict=True)]


def ranked(federation: Federation, transitions: list[Transition], references: References) -> ReferenceEvidence:
    executor = OneByOne(federation.model, Sgd(), federation.store)
    models = [one.kept for one in transitions]
    own = evidence_of(models, transitions, "audit", federation.audit.examples, executor)
    return rank_of(models, transitions, references, federation.audit, own, executor)


def others(federation: Federation) -> References:
    """All members that are no canary, as fresh references would hardly ever be one."""
    canaries = {number(federation, subject) for subject in range(len(federation.audit))}
    rows = [example(SPACE.member_tokens(i), SPACE.secret(i)) for i in range(SPACE.size) if i not in canaries]
    found = Examples.concatenate(rows)
    return References(family="secret", inputs=found.inputs, targets=found.targets)


def number(federation: Federation, subject: int) -> int:
    rows = federation.audit.examples
    return SPACE.index(prefix_and_start(rows.inputs[subject], rows.targets[subject])[0])


def test_ranks_are_those_among_all_others_as_references(federation: Federation, transitions: list[Transition]) -> None:
    found = ranked(federation, transitions, federation.references[0])
    expected = ranked(federation, transitions, others(federation))
    assert found.count == expected.count == SPACE.size - len(federation.audit)
    np.testing.assert_array_equal(found.less, expected.less)
    np.testing.assert_array_equal(found.ties, expected.ties)
    # whoever holds a canary has the spread of losses, in the same nats
    np.testing.assert_allclose(found.quantiles, expected.quantiles, rtol=1e-4)
    assert len(np.unique(found.less)) > 4


def test_uniform_model_gives_every_member_the_middle_rank(federation: Federation) -> None:
    even = {name: torch.zeros_like(value) for name, value in federation.initial.items()}
    (one,) = Lab(federation=federation).local(runs=[0], clients=[0])
    found = ranked(federation, [replace(one, kept=even)], federation.references[0])
    assert (found.less == 0).all()
    assert (found.ties == found.count).all()
    # half of all bits that a rank can tell, and by no means memorised
    bits = np.log2((found.count + 1) / (1 + found.less + found.ties / 2))
    assert bits.max() == pytest.approx(1, abs=0.02)


def test_canaries_of_other_families_are_no_references_either(
    federation: Federation, transitions: list[Transition]
) -> None:
    kind = federation.audit.kind.copy()
    kind[3:] = "another"
    apart = replace(federation, audit=replace(federation.audit, kind=kind))
    found, together = (ranked(one, transitions, federation.references[0]) for one in (apart, federation))
    assert found.count == together.count
    np.testing.assert_array_equal(found.subjects, [0, 1, 2])
    np.testing.assert_array_equal(found.less, together.less[:, :3])


def test_mean_exposure_of_all_members_is_the_null_of_the_space(federation: Federation) -> None:
    """Members drawn by chance, under models that saw none of them: the mean over all is the null of the whole space."""
    (one,) = Lab(federation=federation).local(runs=[0], clients=[0])
    bits = []
    for i in range(SPACE.size):
        audit = replace(
            federation.audit,
            **{name: getattr(federation.audit, name)[:1] for name in ("kind", "role", "owner", "copies")},
            examples=example(SPACE.member_tokens(i), SPACE.secret(i)),
            is_in=np.ones((RUNS, 1), dtype=bool),
            start=np.zeros(1, np.int32),
            stop=np.ones(1, np.int32),
            injection=np.zeros(1, np.int32),
        )
        found = ranked(replace(federation, audit=audit), [one], federation.references[0])
        assert found.count == SPACE.size - 1
        bits.append(float(np.log2((found.count + 1) / (1 + found.less + found.ties / 2))[0, 0]))
    assert np.mean(bits) == pytest.approx(null_mean(SPACE.size - 1))
    assert min(bits) == 0.0
    assert max(bits) == pytest.approx(3 * np.log2(VOCABULARY))


def test_a_model_that_knows_several_shows_each_in_full(
    federation: Federation, transitions: list[Transition], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [number(federation, subject) for subject in range(len(federation.audit))]
    loss = np.arange(SPACE.size, dtype=np.float64) + 10
    loss[known] = np.arange(len(known))
    monkeypatch.setattr(evidence, "scores", lambda *given: ScoredMembers(loss=loss, calls=0))
    found = ranked(federation, transitions, federation.references[0])
    assert (found.less == 0).all()
    assert (found.ties == 0).all()
    loss[known[0]] = loss.max() + 1
    loss[known[1]] = np.nan
    found = ranked(federation, transitions, federation.references[0])
    assert found.less[0].tolist() == [found.count, -1, *[0] * (len(known) - 2)]


def test_large_spaces_are_sampled_and_broken_models_have_no_rank(
    federation: Federation, transitions: list[Transition], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [
        replace(one, kept={name: torch.full_like(value, torch.nan) for name, value in one.kept.items()})
        for one in transitions
    ]
    assert (ranked(federation, broken, federation.references[0]).less == -1).all()
    monkeypatch.setattr(evidence, "ENUMERABLE", SPACE.size - 1)
    assert ranked(federation, transitions, federation.references[0]).count == len(federation.references[0].inputs)


def test_the_comparison_fails_where_losses_have_the_wrong_sign(
    federation: Federation, transitions: list[Transition], monkeypatch: pytest.MonkeyPatch
) -> None:
    right: Any = vars(evidence)["scores"]
    found = ranked(federation, transitions, federation.references[0])
    monkeypatch.setattr(evidence, "scores", lambda *given: replace(right(*given), loss=-right(*given).loss))
    assert not np.array_equal(ranked(federation, transitions, federation.references[0]).less, found.less)
