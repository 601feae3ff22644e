"""Tests of `fedmem/probes/masked_field.py`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.contracts.audit_set import References
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Transition
from fedmem.errors import ComponentError
from fedmem.modalities.text.language_model import causal
from fedmem.modalities.text.secret_space import Candidates
from fedmem.probes.masked_field import MaskedField, _log_likelihoods, _MaskedRecord
from tests.lab import Lab, measured
from tests.language import LENGTH, VOCABULARY, digits, example, loss_of, text_federation

NAMES = Candidates(prefix=(1,), positions=(((2,), (3,), (4,)), ((1, 1), (2,), (3, 4))))


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(federation=text_federation())


@pytest.fixture(scope="module")
def local(lab: Lab) -> list[Transition]:
    return lab.local()


def records_lab() -> Lab:
    """Six records of a name and a field of one or two tokens, the field asked for, and two tokens after it."""
    federation = text_federation()
    numbers = [0, 1, 2, 3, 4, 8]
    parts = []
    for number in numbers:
        text = NAMES.member_tokens(number)
        parts.append(example((*text, 4, 3), (False, False, *[True] * (len(text) - 2), False, False)))
    audit = replace(federation.audit, examples=Examples.concatenate(parts))
    references = (References(family="secret", inputs=audit.examples.inputs, records=NAMES),)
    return Lab(federation=replace(federation, audit=audit, references=references))


def test_all_members_without_other_secrets_are_compared(lab: Lab, local: list[Transition]) -> None:
    """The rank is that of the losses of all members of the template, read token by token."""
    federation, space = lab.federation, digits(3)
    pairs = MaskedField().observe(local[:1], lab)
    assert len(pairs) == 6 * 5
    model = causal(federation.model, local[0].kept)
    losses = [loss_of(model, space.member_tokens(i), space.secret(i)) for i in range(space.size)]
    planted = [record.tokens[0] for record in MaskedField()._records(lab)]
    numbers = [space.index(tokens.tolist()) for tokens in planted]
    found = {(reading.subject, reading.metric): reading.value for _, reading in pairs}
    for subject, number in enumerate(numbers):
        others = [losses[i] for i in range(space.size) if i not in numbers]
        rank = 1 + sum(loss < losses[number] for loss in others)
        assert found[str(subject), "masked_rank"] == rank
        assert found[str(subject), "masked_first"] == (rank == 1)
        assert found[str(subject), "masked_exposure"] == pytest.approx(math.log2((len(others) + 1) / rank))


def test_likelihood_covers_all_that_follows_the_field() -> None:
    """Values of different lengths, with the end of the record after each; what stands before the field is not asked."""
    lab = records_lab()
    (transition,) = lab.local(runs=(0,), clients=(0,))
    model = causal(lab.federation.model, transition.kept)
    records = MaskedField()._records(lab)
    # all three values after the first name are planted, so that none is left to compare with
    assert [(record.subject, len(record.tokens)) for record in records] == [(3, 2), (4, 2), (5, 3)]
    for record in records:
        found = _log_likelihoods(record, transition, lab)
        for tokens, value in zip(record.tokens, found, strict=True):
            text = tokens[tokens >= 0].tolist()
            assert text[-2:] == [4, 3]
            asked = [place >= 2 for place in range(len(text))]
            assert value == pytest.approx(-loss_of(model, text, asked), rel=1e-5)


def with_records(space: Candidates, numbers: list[int], after: tuple[int, ...] = (), **changes: Any) -> Lab:
    """Records of a space whose secret tokens are asked for, with further tokens after each."""
    federation = text_federation()
    parts = [
        example((*space.member_tokens(number), *after), (*space.secret(number), *[False] * len(after)))
        for number in numbers
    ]
    audit = replace(federation.audit, examples=Examples.concatenate(parts))
    references = (References(family="secret", inputs=audit.examples.inputs, records=space),)
    return Lab(federation=replace(federation, audit=audit, references=references, **changes))


def test_fixed_text_after_a_field_stands_once_in_each_candidate() -> None:
    """A template that ends with fixed text: candidates differ in the field alone, and an even model ties them all."""
    space = Candidates(prefix=(1, 2), positions=(tuple((token,) for token in range(5)), ((4,),), ((3,),)))
    lab = with_records(space, [0, 0, 0, 1, 1, 2])
    (transition,) = lab.local(runs=(0,), clients=(0,))
    for one in MaskedField()._records(lab):
        assert {tuple(row[3:].tolist()) for row in one.tokens} == {(4, 3)}
        assert len(one.tokens) == 3, "the true value, and the two that nobody has planted"
    even = replace(transition, kept={name: torch.zeros_like(value) for name, value in transition.kept.items()})
    readings = [reading for _, reading in MaskedField().observe([even], lab)]
    assert {reading.value for reading in readings if reading.metric == "masked_rank"} == {2.0}
    assert {reading.value for reading in readings if reading.metric == "masked_first"} == {0.0}


@pytest.mark.parametrize("after", [(2, 4, 3, 1, 2, 4, 3)[: LENGTH - 2], (0,)])
def test_a_record_ends_with_its_last_token(after: tuple[int, ...]) -> None:
    """Also where that is only a target, since the row is full, and where it has the number of padding."""
    space = Candidates(prefix=(1,), positions=(((2,),), ((0,), (1,), (2,), (3,), (4,))))
    lab = with_records(space, [0, 1, 2, 3, 3, 3], after)
    federation = lab.federation
    store, inputs = federation.store, federation.audit.examples.inputs
    rows = federation.trained_rows[np.searchsorted(federation.audit.subject, np.arange(6))]
    tokens = np.full((6, inputs.shape[1] + 1), -1)
    tokens[:, : 3 + len(after)] = [(*space.member_tokens(number), *after) for number in [0, 1, 2, 3, 3, 3]]
    store.inputs[rows], store.targets[rows] = np.maximum(tokens[:, :-1], 0), tokens[:, 1:]
    for one in MaskedField()._records(lab):
        assert {tuple(row[row >= 0][3:].tolist()) for row in one.tokens} == {after}


def test_many_candidates_are_drawn_once_for_all_models(lab: Lab) -> None:
    probe = MaskedField(candidates=20)
    one, again = probe._records(lab), probe._records(lab)
    planted = {tuple(record.tokens[0].tolist()) for record in one}
    for first, second in zip(one, again, strict=True):
        assert np.array_equal(first.tokens, second.tokens)
        assert len({tuple(row) for row in first.tokens.tolist()}) == 21
        assert planted & {tuple(row) for row in first.tokens[1:].tolist()} == set()


def record(log_frequency: list[float]) -> _MaskedRecord:
    count = len(log_frequency)
    tokens = np.zeros((count, 2), dtype=np.int64)
    return _MaskedRecord(subject=0, tokens=tokens, first=1, log_frequency=np.array(log_frequency))


def test_ranks_ties_and_the_guess_by_frequencies() -> None:
    names = "masked_first", "masked_beats_frequencies", "masked_rank", "masked_exposure", "masked_gain"
    cases = [
        ([-1.0, -2, -3, -4], [-4.0, -1, -2, -3], (1, 1, 1, 2, 2)),
        ([-2.0, -2, -3, -4], [-1.0, -2, -2, -2], (0, 0, 1.5, 2 - math.log2(1.5), -math.log2(1.5))),
        ([-9.0, -2, np.nan, -4], [-1.0, -1, -1, -1], (0, 0, 3, 2 - math.log2(3), math.log2(2.5) - math.log2(3))),
    ]
    for log_likelihood, log_frequency, expected in cases:
        found = record(log_frequency).values(np.array(log_likelihood))
        assert [found[name] for name in names] == pytest.approx(expected)
    broken = record([-1.0, -2]).values(np.array([np.nan, -1.0]))
    assert all(math.isnan(value) for value in broken.values())


def test_frequencies_are_those_of_the_reference_data_plus_one() -> None:
    lab = records_lab()
    rows = lab.federation.population
    tokens = np.concatenate([rows.inputs[:, 0], rows.targets.ravel()])
    share = [(np.count_nonzero(tokens == token) + 1) / (len(tokens) + VOCABULARY) for token in range(VOCABULARY)]
    for one in MaskedField()._records(lab):
        for row, value in zip(one.tokens, one.log_frequency, strict=True):
            field = row[row >= 0][2:-2]
            assert value == pytest.approx(sum(math.log(share[token]) for token in field))
    empty = replace(lab.federation, population=rows.take(np.arange(0)))
    alone = MaskedField()._records(Lab(federation=empty))[-1]
    assert alone.log_frequency[0] == pytest.approx(-2 * math.log(VOCABULARY)), "all tokens are as frequent"


def test_owner_fills_in_what_it_trained_on(lab: Lab) -> None:
    """Models whose owner trained for long on what is in rank it first; others and out runs do not gain."""
    federation = lab.federation
    transitions = []
    for transition in lab.local(runs=range(4)):
        rows = lab.rows(transition.run, transition.client)[-2:]
        transitions.append(replace(transition, kept=lab.descend(transition.kept, [rows] * 60)))
    readings = MaskedField().observe(transitions, lab)
    summary = {
        (one.reading.metric, one.reading.labels.get("place")): one.reading
        for one in MaskedField().summarise(measured(list(readings)), 0)
        if one.scope == "summary" and one.reading.metric.endswith(".difference")
    }
    assert summary["masked_exposure.difference", "owner"].value > 2
    assert summary["masked_first.difference", "owner"].value > 0.3
    assert summary["masked_gain.difference", "owner"].value == pytest.approx(
        summary["masked_exposure.difference", "owner"].value, abs=1.5
    )
    assert abs(summary["masked_exposure.difference", "others"].value) < 2
    assert federation.audit.is_in.mean() == 0.5


def test_without_a_template_there_is_nothing_to_fill_in(lab: Lab) -> None:
    bare = replace(lab.federation, references=())
    with pytest.raises(ComponentError, match="no such audit example has one"):
        MaskedField().observe((), Lab(federation=bare))
    with pytest.raises(ComponentError, match="masked_field lets a model write texts"):
        MaskedField().observe((), Lab())
