"""Which measure of single examples is taken, and what the others say of the same examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray
from fedmem.contracts.evidence import Bank, ReferenceEvidence
from fedmem.contracts.measurement import NO_LABELS, Measurement, Reading
from fedmem.contracts.needs import measures_of
from fedmem.estimators.exposure import Exposure
from fedmem.estimators.memorisation import Memorisation
from fedmem.results.read import Run, read
from fedmem.results.single_measures import ScoredVariant, declaration_of
from fedmem.results.top import Choice, notes, rank_examples
from fedmem.results.write import replace_measurements
from fedmem.scenario.catalogue import kinds, load
from tests.results.top_helpers import RUNS, answers, bank, coins, stored


def with_margins(evidence: Bank, margin: np.ndarray) -> Bank:
    """The same answers, with these margins of the aggregate."""
    whole, *others = evidence.evidence
    return replace(evidence, evidence=(replace(whole, margin=margin), *others))


def ranked(folder: Path, kinds: list[str], canaries: tuple[str, ...], not_uniform: tuple[str, ...] = ()) -> Run:
    """A run whose canaries rank first of 100 where they are in; all answers are wrong."""
    m = len(kinds)
    is_in: BoolArray = coins(m)
    wrong = answers(is_in, [(0, 0)] * m)
    evidence = bank(is_in, wrong, wrong, kinds)
    blocks = []
    for kind in canaries:
        rows = np.flatnonzero(np.array(kinds) == kind)
        less = np.where(is_in[:, rows], 0, 50).astype(np.int32)
        block = ReferenceEvidence(
            round=1, level="global", family=kind, run=np.arange(RUNS, dtype=np.int32),
            client=np.full(RUNS, -1, np.int32), subjects=rows, count=99, less=less, ties=0 * less,
            labels=np.arange(2), quantiles=np.zeros((RUNS, 2, 256), np.float32),
        )  # fmt: skip
        blocks.append(block)
    audit = replace(evidence.audit, not_uniform=not_uniform)
    whole = replace(evidence, references=tuple(blocks), audit=audit)
    return stored(folder, whole, estimators=(Memorisation(), Exposure()))


@pytest.mark.parametrize(
    ("kinds", "not_uniform", "name"),
    [
        (["pin"] * 3, (), "exposure"),
        (["pin"] * 3, ("pin",), "exposure_gain"),
        (["pin"] * 3 + ["typical"], (), "memorisation"),
    ],
)
def test_the_default_measure_is_declared(
    tmp_path: Path, kinds: list[str], not_uniform: tuple[str, ...], name: str
) -> None:
    """A secret shows in its rank where every answer is wrong; ordinary rows have no rank."""
    run = ranked(tmp_path / "run", kinds, ("pin",), not_uniform)
    ranking = rank_examples(run, Choice())
    assert ranking.name == name
    assert ranking.significant == (0 if name == "memorisation" else 3)
    assert rank_examples(run, Choice(kind="pin", measure="memorisation")).significant == 0


def test_a_note_names_the_measure_and_what_others_mark(tmp_path: Path) -> None:
    """Right and wrong answers show nothing, and how sure the models are shows all examples."""
    is_in, rng = coins(6), np.random.default_rng(0)
    wrong = answers(is_in, [(0, 0)] * 6)
    margin = -3.0 + is_in * (np.arange(6) < 2) + 0.1 * rng.random(is_in.shape)
    run = stored(tmp_path / "run", with_margins(bank(is_in, wrong, wrong, ["typical"] * 6), margin))
    ranking = rank_examples(run, Choice())
    assert ranking.other_tests == (("probability_memorisation", 2, 6),)
    text = " ".join(notes(ranking))
    assert "None of" not in text
    assert text.startswith(
        "Examples are memorised: probability_memorisation marks 2 of 6. By memorisation 0 of 6 are significant, so "
        "this order may be noise; see `--measure probability_memorisation`"
    )
    back = rank_examples(run, Choice(measure="probability_memorisation"))
    assert (back.significant, back.other_tests) == (2, (("memorisation", 0, 6),))


def test_a_signal_that_training_lowers_is_ranked_from_below(tmp_path: Path) -> None:
    run = ranked(tmp_path / "run", ["typical"] * 3, ())
    gains = [-0.9, 0.3, -0.1]
    rows = [
        Measurement(
            run=None, round=None, level="global", client=-1, source=source,
            reading=Reading(metric=metric, value=gain, low=gain - 0.1, high=gain + 0.1, n=16, subject=str(subject)),
        )
        for source, metric in (("el2n", "el2n_gain"), ("logit_margin", "logit_margin_gain"))
        for subject, gain in enumerate(gains)
    ]  # fmt: skip
    replace_measurements(run.path, [*run.rows(), *rows])
    stored_run = read(run.path)
    lowered = rank_examples(stored_run, Choice(measure="el2n_gain"))
    assert lowered.is_lowest
    assert lowered.frame["subject"].tolist() == [0, 2, 1]
    raised = rank_examples(stored_run, Choice(measure="logit_margin_gain"))
    assert not raised.is_lowest
    assert raised.frame["subject"].tolist() == [1, 2, 0]


def test_every_signal_has_its_declaration(tmp_path: Path) -> None:
    run = ranked(tmp_path / "run", ["typical"] * 3, ())
    for kind in kinds("signal"):
        for measure in measures_of(load("signal", kind)):
            variant = ScoredVariant(metric=measure.name, labels=NO_LABELS, source=kind, scores={})
            assert declaration_of(run, variant) == measure
