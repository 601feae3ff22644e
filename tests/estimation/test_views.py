from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.estimator import View
from fedmem.contracts.evidence import Bank, Evidence
from fedmem.contracts.measurement import Level
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.views import views
from tests.banks import make_bank


def all_views(bank: Bank) -> dict[tuple[int | None, str, str], View]:
    sample = permute_coins(bank.audit, 5, np.random.default_rng(0))
    return {(v.round, v.level, v.place): v for v in views(bank, sample)}


def evidence_at(bank: Bank, level: Level, round_number: int) -> Evidence:
    (found,) = [e for e in bank.evidence if (e.level, e.round, e.set) == (level, round_number, "audit")]
    return found


def test_places_and_their_order() -> None:
    bank = make_bank(rounds=(0, 2, 4))
    assert list(all_views(bank)) == [
        (0, "global", ""),
        *[(r, *place) for r in (2, 4, None) for place in (("global", ""), ("local", "owner"), ("local", "others"))],
    ]


def test_views_place_every_value_of_the_evidence() -> None:
    bank = make_bank(runs=4, rounds=(0, 1, 2))
    shown = all_views(bank)
    for round_number in (1, 2):
        local = evidence_at(bank, "local", round_number)
        ranks = next(r for r in bank.references if (r.level, r.round) == ("local", round_number))
        owner, others = shown[round_number, "local", "owner"], shown[round_number, "local", "others"]
        clients = sorted(set(local.client.tolist()))
        assert owner.margin.shape == (4, 1, len(bank.audit))
        assert others.margin.shape == (4, len(clients), len(bank.audit))
        for t, (run, client) in enumerate(zip(local.run, local.client, strict=True)):
            q = clients.index(client)
            for j, client_of in enumerate(bank.audit.owner):
                for name in ("loss", "margin", "correct"):
                    expected = float(getattr(local, name)[t, j])
                    if client_of == client:
                        assert getattr(owner, name)[run, 0, j] == expected
                        assert np.isnan(getattr(others, name)[run, q, j])
                    elif client_of in clients:
                        assert getattr(others, name)[run, q, j] == expected
                    else:
                        assert np.isnan(getattr(owner, name)[:, :, j]).all()
                        assert np.isnan(getattr(others, name)[:, :, j]).all()
        for t, (run, client) in enumerate(zip(ranks.run, ranks.client, strict=True)):
            for c, j in enumerate(ranks.subjects):
                if bank.audit.owner[j] == client:
                    assert owner.rank[run, 0, j] == 1 + ranks.less[t, c]


def test_rank_counts_ties_half_and_only_canaries_have_one() -> None:
    bank = make_bank()
    tied = tuple(replace(r, ties=np.full_like(r.ties, 3)) for r in bank.references)
    before, after = all_views(bank)[1, "global", ""], all_views(replace(bank, references=tied))[1, "global", ""]
    canary = bank.audit.role == "canary"
    np.testing.assert_array_equal(after.rank[:, :, canary], before.rank[:, :, canary] + 1.5)
    assert np.isnan(after.rank[:, :, ~canary]).all()
    assert after.references.tolist() == np.where(canary, 100, 0).tolist()


def test_negative_counts_mean_not_ranked() -> None:
    bank = make_bank(levels=("global",))
    gone = tuple(replace(r, less=np.full_like(r.less, -1)) for r in bank.references)
    assert np.isnan(all_views(replace(bank, references=gone))[1, "global", ""].rank).all()


def test_summary_reads_the_last_round_of_the_owner_everywhere() -> None:
    bank = make_bank(clients=6, cohort=2, rounds=(0, 1, 2, 3), seed=3)
    shown = all_views(bank)
    final = {place: shown[None, *place] for place in (("global", ""), ("local", "owner"), ("local", "others"))}
    present = {r: set(evidence_at(bank, "local", r).client.tolist()) for r in (1, 2, 3)}
    never = 0
    for j, owner in enumerate(bank.audit.owner):
        rounds = [r for r in (1, 2, 3) if owner in present[r]]
        for place, view in final.items():
            if not rounds:
                assert np.isnan(view.margin[:, :, j]).all()
                never += 1
            else:
                np.testing.assert_array_equal(view.margin[:, :, j], shown[rounds[-1], *place].margin[:, :, j])
                np.testing.assert_array_equal(view.rank[:, :, j], shown[rounds[-1], *place].rank[:, :, j])
    assert never, "the bank should hold a client that never takes part"


def test_owner_absent_in_one_run_has_no_local_view() -> None:
    bank = make_bank(runs=4, rounds=(0, 1))
    local = evidence_at(bank, "local", 1)
    client = int(local.client[0])

    def without(part: Any, *names: str) -> Any:
        kept = ~((part.client == client) & (part.run == 2))
        return replace(part, **{name: getattr(part, name)[kept] for name in ("run", "client", *names)})

    bank = replace(
        bank,
        evidence=tuple(without(e, "loss", "margin", "correct") for e in bank.evidence),
        references=tuple(without(r, "less", "ties", "quantiles") for r in bank.references),
    )
    shown = all_views(bank)
    mine = bank.audit.owner == client
    for round_number in (1, None):
        assert np.isnan(shown[round_number, "local", "owner"].margin[:, :, mine]).all()
    assert not np.isnan(shown[1, "global", ""].margin[:, :, mine]).any()
    assert np.isnan(shown[None, "global", ""].margin[:, :, mine]).all()


def test_summary_has_as_many_others_as_their_last_round() -> None:
    bank = make_bank(clients=5, cohort=2, rounds=(0, 1), seed=1)
    wider = make_bank(clients=5, cohort=4, rounds=(0, 2), seed=1)
    joined = replace(
        bank,
        evidence=bank.evidence + tuple(e for e in wider.evidence if e.round == 2),
        references=bank.references + tuple(r for r in wider.references if r.round == 2),
    )
    others = all_views(joined)[None, "local", "others"].margin
    assert others.shape[1] == 4
    assert set((~np.isnan(others)).sum(1).ravel().tolist()) <= {0, 1, 3}


@pytest.mark.parametrize("change", [{"roster": "per_run"}, {"levels": ("global",)}])
def test_without_local_models_final_is_the_last_round(change: dict[str, Any]) -> None:
    shown = all_views(make_bank(rounds=(0, 1, 3), **change))
    assert {(level, place) for _, level, place in shown} == {("global", "")}
    np.testing.assert_array_equal(shown[None, "global", ""].margin, shown[3, "global", ""].margin)


def test_local_models_alone_have_a_summary_too() -> None:
    shown = all_views(make_bank(levels=("local",), rounds=(1, 2)))
    assert (None, "global", "") not in shown
    assert (None, "local", "owner") in shown


def test_pairs_need_both_levels_where_both_were_observed() -> None:
    bank = make_bank(clients=3, cohort=3, rounds=(0, 1, 2))
    without = replace(bank, evidence=tuple(e for e in bank.evidence if (e.level, e.round) != ("global", 2)))
    without = replace(without, references=())
    shown = all_views(without)
    np.testing.assert_array_equal(shown[None, "local", "owner"].margin, shown[1, "local", "owner"].margin)


def test_examples_without_owner_are_global_only() -> None:
    bank = make_bank(rounds=(0, 1, 2))
    owner = bank.audit.owner.copy()
    owner[:2] = -1
    bank = replace(bank, audit=replace(bank.audit, owner=owner))
    shown = all_views(bank)
    for round_number in (1, 2, None):
        assert np.isnan(shown[round_number, "local", "owner"].margin[:, :, :2]).all()
        assert np.isnan(shown[round_number, "local", "others"].margin[:, :, :2]).all()
    np.testing.assert_array_equal(shown[None, "global", ""].margin[:, :, :2], shown[2, "global", ""].margin[:, :, :2])


def test_evidence_may_come_in_parts_and_of_other_sets() -> None:
    bank = make_bank(runs=4, rounds=(0, 1))
    parts = []
    for e in bank.evidence:
        for chosen in (e.run < 2, e.run >= 2):
            names = ("run", "client", "loss", "margin", "correct")
            parts.append(replace(e, **{n: getattr(e, n)[chosen] for n in names}))
    noise = tuple(replace(e, set="test", margin=np.zeros_like(e.margin)) for e in bank.evidence)
    split = all_views(replace(bank, evidence=(*parts, *noise)))
    for key, view in all_views(bank).items():
        np.testing.assert_array_equal(view.margin, split[key].margin)


def test_an_empty_bank_has_no_views() -> None:
    assert all_views(replace(make_bank(), evidence=(), references=())) == {}


def test_second_owner_of_an_example_is_not_among_the_others() -> None:
    """Shared by two clients, it is read at its holder, and the model of the second is left out of the others."""
    bank = make_bank(runs=4, clients=4, cohort=4, rounds=(0, 1))
    audit = bank.audit
    second = (audit.owner + 1) % 4
    owner = np.stack([audit.owner, second], axis=1).ravel().astype(np.int32)
    shared = replace(bank, audit=replace(audit, copies=np.full(len(audit), 2, np.int32), copy_owner=owner))
    before, after = all_views(bank)[1, "local", "others"], all_views(shared)[1, "local", "others"]
    np.testing.assert_array_equal(
        all_views(bank)[1, "local", "owner"].margin, all_views(shared)[1, "local", "owner"].margin
    )
    for j in range(len(audit)):
        assert not np.isnan(before.margin[:, second[j], j]).any()
        assert np.isnan(after.margin[:, second[j], j]).all()
        assert after.sets["audit"].models.of[second[j], j] == -1
        rest = [k for k in range(4) if k not in (audit.owner[j], second[j])]
        np.testing.assert_array_equal(after.margin[:, rest, j], before.margin[:, rest, j])


def test_clients_hold_the_examples_of_their_copies() -> None:
    bank = make_bank(runs=4, clients=4, per_client=1, kinds=("typical",))
    assert bank.audit.holds([2, -1]).tolist() == [[False, False, True, False], [False] * 4]
    owner = np.array([0, 2, 1, 1, 2, 0, 3, 3], np.int32)
    shared = replace(bank.audit, copies=np.full(4, 2, np.int32), copy_owner=owner)
    assert shared.holds(range(4)).tolist() == [
        [True, False, True, False],
        [False, True, False, False],
        [True, False, True, False],
        [False, False, False, True],
    ]


def test_diverged_model_has_nan_correctness() -> None:
    bank = make_bank()

    def diverged(part: Evidence) -> Evidence:
        margin = np.where((part.run == 1)[:, None], np.nan, part.margin)
        # as the evidence has it: no margin, and no correct answer
        return replace(part, margin=margin, loss=np.where(np.isnan(margin), np.nan, part.loss), correct=margin > 0)

    changed = replace(bank, evidence=tuple(diverged(part) for part in bank.evidence))
    before, after = all_views(bank), all_views(changed)
    assert before.keys() == after.keys()
    for place, view in after.items():
        assert np.isnan(view.correct[1]).all()
        np.testing.assert_array_equal(view.correct[0], before[place].correct[0])


def test_every_view_has_the_losses_of_the_initial_models() -> None:
    bank = make_bank(rounds=(0, 2, 4))
    start = evidence_at(bank, "global", 0)
    expected = start.loss[np.argsort(start.run)]
    for view in all_views(bank).values():
        assert view.initial is not None
        np.testing.assert_array_equal(view.initial, expected)
    assert {view.initial is None for view in all_views(make_bank(rounds=(2, 4))).values()} == {True}
    assert {view.initial is None for view in all_views(make_bank(levels=("local",))).values()} == {True}
