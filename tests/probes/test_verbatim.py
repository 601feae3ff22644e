"""Tests of `fedmem/probes/verbatim.py`."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import Reading
from fedmem.errors import ComponentError
from fedmem.modalities.text.generation import beam, edit_distance
from fedmem.modalities.text.language_model import causal
from fedmem.probes import verbatim
from fedmem.probes.verbatim import Verbatim
from tests.lab import Lab, measured
from tests.language import CLIENTS, LENGTH, VOCABULARY, Written, text_federation


@pytest.fixture(scope="module")
def lab() -> Lab:
    """Three clients; each has two passages of its own rows as audit examples, all tokens but the first asked for."""
    federation = text_federation()
    tokens = np.random.default_rng(8).integers(VOCABULARY, size=(2 * CLIENTS, LENGTH + 1))
    passages = Examples(inputs=tokens[:, :-1], targets=tokens[:, 1:].copy(), ids=federation.audit.examples.ids)
    audit = replace(
        federation.audit,
        examples=passages,
        kind=np.array(["typical"] * 2 * CLIENTS),
        role=np.array(["typical"] * 2 * CLIENTS),
        injection=np.zeros(2 * CLIENTS, dtype=np.int32),
    )
    return Lab(federation=replace(federation, audit=audit, references=()))


@pytest.fixture(scope="module")
def local(lab: Lab) -> list[Transition]:
    return lab.local()


def text_of(lab: Lab, subject: int) -> list[int]:
    examples = lab.federation.audit.examples
    return [int(examples.inputs[subject][0]), *examples.targets[subject].tolist()]


def test_readings_are_those_of_greedy_decoding(lab: Lab, local: list[Transition]) -> None:
    pairs = Verbatim(prefixes=(2, 4), suffix=3).observe(local[:2], lab)
    assert len(pairs) == 2 * 6 * 2 * 5
    found = {(id(t), r.subject, r.labels.get("prefix"), r.metric): r.value for t, r in pairs}
    for transition in local[:2]:
        model = causal(lab.federation.model, transition.kept)
        for subject in range(6):
            for prefix in (2, 4):
                text = text_of(lab, subject)
                truth = text[prefix : prefix + 3]
                written = beam(model, text[:prefix], len(truth)).tokens[0].tolist()
                same = [a == b for a, b in zip(written, truth, strict=True)]
                values = {m: found[id(transition), str(subject), prefix, m] for m in ("edit_distance", "common_prefix")}
                assert values["edit_distance"] == edit_distance(written, truth) / 3
                assert values["common_prefix"] == (same.index(False) if False in same else 3)
                assert found[id(transition), str(subject), prefix, "verbatim_continuation"] == all(same)
                assert math.isnan(found[id(transition), str(subject), prefix, "bleu_verbatim"])


def test_near_verbatim_includes_its_threshold() -> None:
    truth = np.arange(10)[None]
    one, two = truth.copy(), truth.copy()
    one[0, 9], two[0, [0, 9]] = 3, 3
    near = [Verbatim()._scores(written, truth)["near_verbatim"][0] for written in (truth, one, two)]
    assert near == [1, 1, 0]
    assert Verbatim(near=0.91)._scores(one, truth)["near_verbatim"][0] == 0
    scores = Verbatim()._scores(one, truth)
    assert (scores["verbatim_continuation"][0], scores["edit_distance"][0], scores["common_prefix"][0]) == (0, 0.1, 9)
    # 9/10 · 8/9 · 7/8 · 6/7 to the power ¼ is .88; two edits at the ends leave .77, one in the middle .69
    middle = truth.copy()
    middle[0, 5] = 3
    by_bleu = [Verbatim()._scores(written, truth)["bleu_verbatim"][0] for written in (one, two, middle)]
    assert by_bleu == [1, 1, 0]


def knowing(lab: Lab, local: list[Transition], monkeypatch: pytest.MonkeyPatch) -> list[tuple[Transition, Reading]]:
    """The readings of models that know the texts of their own clients that are in, and the aggregate those of all."""
    audit = lab.federation.audit
    aggregates = lab.aggregated(local)
    by_model = {id(t.kept): t for t in (*local, *aggregates)}

    def read(_: object, params: object) -> Written:
        transition = by_model[id(params)]
        known = [
            text_of(lab, subject)
            for subject in range(len(audit))
            if audit.is_in[transition.run, subject] and transition.client in (-1, audit.owner[subject])
        ]

        def law(text: tuple[int, ...]) -> list[float]:
            following = [whole[len(text)] for whole in known if whole[: len(text)] == list(text)]
            wrong = 0.1 / (VOCABULARY - 1)
            return [0.9 if [token] == following[:1] else wrong for token in range(VOCABULARY)]

        return Written(law)

    monkeypatch.setattr(verbatim, "causal", read)
    probe = Verbatim(prefixes=(3,), suffix=None)
    return [*probe.observe(local, lab), *probe.observe(aggregates, lab)]


def test_cross_client_extraction_needs_the_aggregate(
    lab: Lab, local: list[Transition], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Owners and aggregates continue what was in; other clients and runs without the text do not."""
    summary: dict[tuple[object, ...], Reading] = {
        (one.level, one.reading.metric, one.reading.labels.get("place"), one.reading.labels.get("coin")): one.reading
        for one in Verbatim().summarise(measured(knowing(lab, local, monkeypatch)), 0)
        if one.scope == "summary"
    }
    metric = "verbatim_continuation"
    shares = {
        place: (summary[level, metric, place, None].value, summary[level, metric, place, "out"].value)
        for level, place in (("local", "owner"), ("local", "others"), ("global", None))
    }
    assert shares == {"owner": (1.0, 0.0), "others": (0.0, 0.0), None: (1.0, 0.0)}
    gain = summary["global", f"{metric}.difference", None, None]
    assert gain.value == 1.0
    assert gain.low < 1.0
    assert summary["local", f"{metric}.difference", "others", None].value == 0.0
    assert summary["local", "edit_distance.difference", "owner", None].value < -0.5


def test_secret_is_given_with_all_that_stands_before_it() -> None:
    """The prefix of one token is less than what stands before the first token that is asked for; the label stays 1."""
    federation = text_federation()
    (passages,) = Verbatim(prefixes=(1,))._passages(federation)
    assert (passages.prefix, passages.cut, passages.tokens.shape) == (1, 1, (6, 4))
    examples = federation.audit.examples
    later = replace(examples, targets=np.where(np.arange(LENGTH) == 0, -1, examples.targets))
    federation = replace(federation, audit=replace(federation.audit, examples=later))
    (passages,) = Verbatim(prefixes=(1,))._passages(federation)
    assert (passages.prefix, passages.cut) == (1, 2)


def test_short_texts_are_left_out_and_none_is_an_error(lab: Lab) -> None:
    federation = text_federation()  # texts of four tokens
    assert {p.prefix for p in Verbatim(prefixes=(3, 4))._passages(federation)} == {3}
    with pytest.raises(ComponentError, match="no audit text has more than 4 tokens"):
        Verbatim(prefixes=(4, 9))._passages(federation)
    with pytest.raises(ComponentError, match=r"no injection is called 'x'; there are: secret"):
        Verbatim(kinds=("x",))._passages(federation)
    with pytest.raises(ComponentError, match="one label for each row"):
        Verbatim().observe((), Lab())
