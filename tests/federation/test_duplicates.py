"""Tests of `fedmem/federation/duplicates.py`, and of clients that leave out duplicates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.clients.sgd import Sgd
from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.errors import ScenarioError
from fedmem.federation.build import build
from fedmem.federation.duplicates import duplicates_of, effects_of
from fedmem.modalities.text.windows import inputs_and_targets
from tests.narrowing import present
from tests.tiny import tiny

COPIES = [{"kind": "random_pattern", "copies": 5}, {"kind": "typical", "copies": 3}]


def federation(**client: Any) -> Federation:
    return build(tiny(injections=COPIES, client={"kind": "sgd", **client}))


def texts(*rows: list[int]) -> Examples:
    tokens = np.array([[*row, *[-1] * (12 - len(row))] for row in rows])
    inputs, targets = inputs_and_targets(tokens)
    return Examples(inputs=inputs, targets=targets, ids=np.arange(len(rows)))


def test_exact_duplicates_share_inputs_and_targets() -> None:
    inputs = np.array([[1.0, 2], [1, 2], [1, 2], [2, 1]], dtype=np.float32)
    rows = Examples(inputs=inputs, targets=np.array([0, 1, 0, 0]), ids=np.arange(4))
    duplicates = present(duplicates_of(Sgd(deduplicate="exact"), rows))
    assert duplicates.keep_first(np.arange(4)).tolist() == [0, 1, 3]
    assert duplicates_of(Sgd(), rows) is None


def test_near_duplicates_share_ngrams_of_five_tokens() -> None:
    """Twelve tokens have eight 5-grams; a change of the last leaves 7 of 9, one in the middle 3 of 13."""
    text = list(range(12))
    rows = texts(text, [*text[:-1], 50], [*text[:6], 50, *text[7:]], text[:3], text[:3], text[:4])
    kept = {
        overlap: present(duplicates_of(Sgd(deduplicate="near", overlap=overlap), rows)) for overlap in (0.2, 0.5, 0.8)
    }
    assert kept[0.2].keep_first(np.arange(6)).tolist() == [0, 3, 5]
    assert kept[0.5].keep_first(np.arange(6)).tolist() == [0, 2, 3, 5]
    assert kept[0.8].keep_first(np.arange(6)).tolist() == [0, 1, 2, 3, 5]


def test_copies_become_one_and_all_else_stays() -> None:
    plain, without = federation(), federation(deduplicate="exact")
    audit = plain.audit
    assert np.array_equal(without.audit.is_in, audit.is_in)
    assert np.array_equal(without.replacement, plain.replacement)
    runs, clients = (part.ravel() for part in np.indices((audit.runs, plain.num_clients)))
    together, sizes = without.rows_of(runs, clients, 1), without.sizes_of(runs, clients, 1)
    for i, (run, client) in enumerate(zip(runs.tolist(), clients.tolist(), strict=True)):
        rows = plain.rows(run, client, 1).tolist()
        kept = without.rows(run, client, 1).tolist()
        assert kept == list(dict.fromkeys(rows)), "synthetic rows are all different"
        assert together[i].tolist() == kept
        assert sizes[i] == len(kept)
        own = [j for j in range(len(audit)) if audit.owner[j] == client and audit.is_in[run, j]]
        assert [kept.count(plain.audit_start + j) for j in own] == [1] * len(own), "in examples are trained on once"
    assert not np.array_equal(sizes, plain.sizes_of(runs, clients, 1))
    (note,) = set(without.notes) - set(plain.notes)
    assert note.endswith("copies of audit examples where all of these are in")
    assert "on 200 of 200 base rows, and on 40 of 160 copies" in note
    assert without.warnings == plain.warnings


def test_rule_does_not_look_at_coins() -> None:
    """The rows of a client in a run follow from its rows alone: base rows come before in examples and replacements."""
    whole = federation(deduplicate="exact")
    duplicates = present(whole.duplicates)
    plain = federation()
    for run in range(whole.audit.runs):
        for client in range(whole.num_clients):
            rows = plain.rows(run, client, 1)
            assert whole.rows(run, client, 1).tolist() == duplicates.keep_first(rows).tolist()
            assert whole.rows(run, client, 1)[: len(whole.base[client])].tolist() == whole.base[client].tolist()


def test_central_training_has_the_rows_of_the_clients() -> None:
    settings: dict[str, Any] = {
        "injections": COPIES,
        "client": {"kind": "sgd", "deduplicate": "exact"},
        "sampler": {"kind": "everyone"},
    }
    apart, pooled = build(tiny(**settings)), build(tiny(**settings, central="by_client"))
    for run in (0, 3):
        expected = np.concatenate([apart.rows(run, client, 1) for client in range(5)])
        assert pooled.rows(run, 0, 1).tolist() == expected.tolist()
        assert pooled.sizes_of(np.array([run]), np.array([0]), 1).tolist() == [len(expected)]


def test_example_that_equals_another_row_is_a_warning() -> None:
    """Copies with a noisy pixel stay; a canary that a base row equals is never trained on, and readers are told."""
    whole = federation(deduplicate="exact")
    row, example = int(whole.base[0][0]), int(np.flatnonzero(whole.audit.owner == 0)[0])
    store = whole.store
    inputs, targets = store.inputs.copy(), store.targets.copy()
    inputs[row], targets[row] = inputs[whole.audit_start + example], targets[whole.audit_start + example]
    changed = Examples(inputs=inputs, targets=targets, ids=store.ids)
    _, warnings = effects_of(present(duplicates_of(Sgd(deduplicate="exact"), changed)), whole)
    assert [warning.partition(" audit")[0] for warning in warnings] == ["1"]


def test_record_level_privacy_and_other_data_are_refused() -> None:
    def paths(**changes: Any) -> list[tuple[str, str]]:
        with pytest.raises(ScenarioError) as caught:
            build(tiny(**changes))
        return [(problem.path, problem.message) for problem in caught.value.problems]

    ((path, message),) = paths(client={"kind": "dp_sgd", "deduplicate": "exact"})
    assert path == "client.deduplicate"
    assert "deduplicate the data beforehand" in message
    ((path, message),) = paths(client={"kind": "sgd", "deduplicate": "near"})
    assert path == "client.deduplicate"
    assert "works on the tokens of texts, and synthetic has none" in message
    ((path, message),) = paths(client={"kind": "sgd", "goldfish": 4})
    assert path == "client.goldfish"
