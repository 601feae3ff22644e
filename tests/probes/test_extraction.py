"""What the probe says of secrets against models whose answers are known, and against its parts called by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import Level, Measurement, Reading
from fedmem.errors import ComponentError
from fedmem.modalities.text.generation import Sampling, beam, draws_needed, edit_distance, log_probabilities
from fedmem.modalities.text.language_model import causal
from fedmem.modalities.text.shortest_path import search_most_probable
from fedmem.modalities.text.windows import prefix_and_start
from fedmem.probes import extraction
from fedmem.probes._leakage_summary import at_last_participation
from fedmem.probes.extraction import Extraction
from tests.lab import Lab, measured
from tests.labelling import labels
from tests.language import VOCABULARY, Written, text_federation

PROBE = Extraction(calls=500, members=5, top_k=3, width=4, draws=20)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(federation=text_federation())


@pytest.fixture(scope="module")
def local(lab: Lab) -> list[Transition]:
    return lab.local()


def by_metric(pairs: list[tuple[Transition, Reading]], model: Transition, subject: int) -> dict[str, Reading]:
    return {one.metric: one for about, one in pairs if about is model and one.subject == str(subject)}


def test_readings_are_those_of_the_parts(lab: Lab, local: list[Transition]) -> None:
    federation = lab.federation
    pairs = list(PROBE.observe(local, lab))
    space = federation.references[0].space
    assert space is not None
    assert len(pairs) == len(local) * len(federation.audit) * 7
    for model in local[::2]:
        reader = causal(federation.model, model.kept)
        for subject in range(len(federation.audit)):
            text, first = prefix_and_start(
                federation.audit.examples.inputs[subject], federation.audit.examples.targets[subject]
            )
            given, rest = text[:first], np.array([text[first:]])
            found = by_metric(pairs, model, subject)
            wide = beam(reader, given, 3, 4).tokens
            away = [edit_distance(one, rest[0]) for one in wide]
            greedy = edit_distance(beam(reader, given, 3).tokens[0], rest[0])
            needed = draws_needed(float(log_probabilities(reader, given, rest, Sampling(top_k=3))[0]), 0.5)
            assert (found["greedy"].value, found["greedy_within_distance"].value) == (greedy == 0, greedy <= 1)
            assert (found["beam"].value, found["beam_within_distance"].value) == (min(away) == 0, min(away) <= 1)
            assert found["draws_needed"].value == needed
            assert found["discoverable"].value == (needed <= 20)
            assert found["best_first"].value == (space.index(text) in search_most_probable(reader, space, 5).numbers)


def test_labels_state_the_place_and_the_coin(lab: Lab, local: list[Transition]) -> None:
    audit = lab.federation.audit
    for about, reading in PROBE.observe(local, lab):
        subject = int(reading.subject)
        assert reading.labels.get("place") == ("owner" if audit.owner[subject] == about.client else "others")
        assert (reading.labels.get("coin") == "out") == (not audit.is_in[about.run, subject])
    for _, reading in PROBE.observe(lab.aggregated(local), lab):
        assert "place" not in reading.labels
    chances = {one.metric: one.labels.get("guess_rate") for _, one in PROBE.observe(local, lab)}
    assert chances["greedy"] == 0.008  # one of 5^3
    assert chances["beam"] == 0.032
    assert chances["best_first"] == 0.04


def test_model_that_knows_the_secret_extracts_it_by_every_method(
    lab: Lab, local: list[Transition], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder of secret 0 has it by heart where its coin is in; all others know nothing."""
    federation = lab.federation
    secret, _ = prefix_and_start(federation.audit.examples.inputs[0], federation.audit.examples.targets[0])
    knowing = [t for t in local if t.client == federation.audit.owner[0] and federation.audit.is_in[t.run, 0]]
    assert knowing
    models = {id(t.kept): t for t in local}

    def read(_: object, params: object) -> Written:
        known = any(models[id(params)] is t for t in knowing)

        def law(text: tuple[int, ...]) -> list[float]:
            if known and text == secret[: len(text)] and len(text) < len(secret):
                return [0.96 if token == secret[len(text)] else 0.01 for token in range(VOCABULARY)]
            return [1 / VOCABULARY] * VOCABULARY

        return Written(law)

    monkeypatch.setattr(extraction, "causal", read)
    pairs = list(PROBE.observe(local, lab))
    for about in local:
        found = by_metric(pairs, about, 0)
        right = {metric: found[metric].value for metric in ("greedy", "beam", "best_first", "discoverable")}
        if about in knowing:
            assert set(right.values()) == {1.0}
            assert found["draws_needed"].value == 1
        else:
            assert right["greedy"] == 0
            assert found["draws_needed"].value == math.inf or found["draws_needed"].value >= 19
    summary = {
        (one.reading.metric, one.reading.labels.get("place")): one.reading
        for one in PROBE.summarise(measured([(t, r) for t, r in pairs if r.subject == "0"]), 0)
        if one.scope == "summary" and not one.reading.labels.only(["coin", "contrast"])
    }
    assert (summary["greedy", "owner"].value, summary["greedy", "owner"].n) == (1.0, len(knowing))
    assert summary["greedy", "others"].value == 0.0
    assert summary["greedy", "owner"].low < 1.0


def test_summary_reads_each_secret_once_at_its_own_round() -> None:
    """The untrained aggregate of round 0, and earlier rounds, count in their round but not in the summary."""

    def read(round_number: int, level: Level, value: float, owner: int, place: str | None) -> Measurement:
        about = labels("width=5 kind=secret", place=place, owner=owner)
        reading = Reading(metric="greedy", value=value, subject=str(owner), labels=about)
        return Measurement(run=0, round=round_number, level=level, client=owner, source="probe", reading=reading)

    # owner 0 takes part in rounds 2 and 6, owner 1 in round 4
    local = [read(r, "local", 1.0, owner, "owner") for r, owner in ((2, 0), (4, 1), (6, 0))]
    aggregates = [
        read(r, "global", float((r, owner) in ((6, 0), (4, 1))), owner, None) for r in (0, 2, 4, 6) for owner in (0, 1)
    ]
    by_round = {(m.level, m.round): (m.reading.value, m.reading.n) for m in PROBE.summarise([*local, *aggregates], 0)}
    assert by_round["global", 0] == (0.0, 2)
    assert (by_round["local", None], by_round["global", None]) == ((1.0, 2), (1.0, 2))
    alone = {(m.level, m.round): (m.reading.value, m.reading.n) for m in PROBE.summarise(aggregates, 0)}
    assert alone["global", None] == (0.5, 2), "without local models all are read at the last round"


def test_other_holders_do_not_move_the_last_round_of_an_owner() -> None:
    """X is held by client 0 alone, Y by clients 0 and 1; client 0 takes part in round 1 and client 1 in round 2."""

    def read(subject: str, client: int, value: float) -> Measurement:
        place = "owner" if client == 0 or subject == "Y" else "others"
        about = labels("width=5 kind=secret", place=place, owner=0)
        reading = Reading(metric="beam", value=value, subject=subject, labels=about)
        return Measurement(run=0, round=client + 1, level="local", client=client, source="probe", reading=reading)

    found = at_last_participation([read("X", 0, 1.0), read("Y", 0, 1.0), read("X", 1, 0.0), read("Y", 1, 0.0)])
    assert [(one.reading.subject, one.client) for one in found] == [("X", 0), ("Y", 0)]


def rows(values: list[float], coins: list[bool]) -> list[Measurement]:
    return [
        Measurement(
            run=i,
            round=3,
            level="local",
            client=i % 5,
            source="probe",
            reading=Reading(
                metric="beam",
                value=value,
                subject=str(i),
                labels=labels("place=owner width=5 kind=secret", owner=i % 5, coin=None if coin else "out"),
            ),
        )
        for i, (value, coin) in enumerate(zip(values, coins, strict=True))
    ]


def test_shares_have_intervals_counts_and_controls() -> None:
    found = Extraction().summarise(rows([1, 1, 1, 0, 0, 0, 0, 1], [True] * 4 + [False] * 4), 0)
    final = {
        (one.reading.metric, one.reading.labels.get("coin") == "out"): one.reading
        for one in found
        if one.scope == "summary"
    }
    share, control = final["beam", False], final["beam", True]
    difference = next(one.reading for one in found if one.reading.metric == "beam.difference" and one.round is None)
    assert (share.value, share.n, control.value, control.n) == (0.75, 4, 0.25, 4)
    assert 0 <= share.low < 0.75 < share.high <= 1
    assert (difference.value, difference.n) == (0.5, 8)
    assert -1 <= difference.low < 0.5 < difference.high <= 1


def test_no_mean_of_draws_that_may_be_without_end(lab: Lab, local: list[Transition]) -> None:
    summary = PROBE.summarise(measured(list(PROBE.observe(local, lab))), 0)
    assert "draws_needed" not in {one.reading.metric for one in summary}
    assert all(math.isfinite(one.reading.value) for one in summary)


def test_extraction_refuses_images_and_unknown_kinds(lab: Lab, local: list[Transition]) -> None:
    pictures = Lab()
    with pytest.raises(ComponentError, match="Use a data set of texts"):
        Extraction().observe(pictures.local(), pictures)
    with pytest.raises(ComponentError, match="no injection is called 'sercet'; there are: secret"):
        Extraction(kinds=("sercet",)).observe(local, lab)


def test_extraction_respects_levels_runs_and_layers_of_owners(lab: Lab, local: list[Transition]) -> None:
    assert {t.run for t, _ in Extraction(runs=1).observe(local, lab)} == {0}
    aggregate = lab.aggregated(local)[0]
    completed = [replace(aggregate, client=k) for k in range(3)]
    subjects = {(t.client, int(r.subject)) for t, r in Extraction().observe(completed, lab)}
    assert subjects == {(k, 2 * k + i) for k in range(3) for i in range(2)}
    summed = [replace(aggregate, level="sum", clients=(0, 1))]
    whose = {int(r.subject): r.labels.get("place") for _, r in Extraction().observe(summed, lab)}
    assert whose == {0: "owner", 1: "owner", 2: "owner", 3: "owner", 4: "others", 5: "others"}


def test_written_texts_are_kept_beside_the_secrets_of_the_owner(lab: Lab, local: list[Transition]) -> None:
    watching = replace(lab, observed_rounds=(0, local[0].round), kept={})
    Extraction().observe(local, watching)
    audit, shown = lab.federation.audit, local[0]
    group = f"written/local/run_{shown.run}/client_{shown.client}"
    subjects = watching.kept[f"{group}/subject"].tolist()
    assert subjects == np.flatnonzero(audit.holds([shown.client])[0]).tolist()
    reader = causal(lab.federation.model, shown.kept)
    columns = (watching.kept[f"{group}/{key}"].tolist() for key in ("secret", "written"))
    for subject, secret, text in zip(subjects, *columns, strict=True):
        whole, first = prefix_and_start(audit.examples.inputs[subject], audit.examples.targets[subject])
        decode = lab.federation.modality.decode
        assert secret == decode(np.array(whole[first:]))
        assert text == decode(beam(reader, whole[:first], len(whole) - first).tokens[0])
    assert max(int(name.split("/")[2].removeprefix("run_")) for name in watching.kept) < 4
    early = replace(lab, observed_rounds=(0, local[0].round, 99), kept={})
    Extraction().observe(local, early)
    assert early.kept == {}
