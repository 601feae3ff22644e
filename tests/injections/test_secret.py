"""Secrets in texts: what they look like, what is asked for, with whom they are and where; each number by hand."""

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.data import ClientData, Dataset, Examples, Space
from fedmem.contracts.reserve import Reserve
from fedmem.datasets.shakespeare import Shakespeare
from fedmem.errors import ComponentError, ScenarioError
from fedmem.federation import build as federations
from fedmem.injections._placement import PlacedInjection
from fedmem.injections.near_duplicate import NearDuplicate
from fedmem.injections.personal import Personal
from fedmem.injections.random_tokens import RandomTokens
from fedmem.injections.secret import Secret
from fedmem.injections.typical import Typical
from fedmem.modalities.tables import Tables
from fedmem.modalities.text.vocabulary import Vocabulary
from fedmem.modalities.text.windows import PADDING, join_windows
from fedmem.modalities.texts import Texts
from tests.injections.secret_helpers import CLIENTS, DATA, SPACE, asked_of, plan, texts, written
from tests.narrowing import instance, present
from tests.tiny import tiny

# What a secret is


def test_a_secret_is_asked_for_its_own_tokens_and_nothing_else() -> None:
    planned = plan(Secret(template="code {digits:3}, and {words:pet}.", lists={"pet": ("cat", "doge")}))
    for text, own in zip(texts(planned), asked_of(planned.examples), strict=True):
        assert text == f"code {own[:3]}, and {own[3:]}"
        assert own[:3].isdigit()
        assert own[3:] in ("cat", "doge")
    trained = written(present(planned.extra))
    assert [text + "." for text in texts(planned)] == trained, "copies have the fixed text after it too"
    assert (present(planned.extra).targets[:, : len("code ")] != PADDING).all(), "and ask for every token"


def test_secrets_are_distinct_and_uniform_over_members() -> None:
    injection = Secret(template="code {digits:1}{words:pet}", lists={"pet": ("cat", "doge", "ox")}, per_client=1)
    counts: dict[str, int] = {}
    for seed in range(300):
        found = asked_of(plan(injection, seed).examples)
        assert len(set(found)) == CLIENTS
        for own in found:
            counts[own] = counts.get(own, 0) + 1
    assert len(counts) == 30
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    # odds by the length of a word would be seen
    lengths = np.array([len(own) - 1 for own in counts], float)
    uneven = lengths / lengths.sum() * sum(counts.values())
    assert stats.chisquare(list(counts.values()), uneven).pvalue < 1e-3
    fresh = injection.references(3000, SPACE, np.random.default_rng(1))
    assert present(fresh.space).size == 30
    assert (
        present(Secret(template="code {digits:7}").references(2, SPACE, np.random.default_rng(1)).space).size == 10**7
    )
    members = np.unique(present(fresh.targets), axis=0, return_counts=True)[1]
    assert len(members) == 30
    assert stats.chisquare(members).pvalue > 1e-3
    assert (fresh.inputs[:, :4] == plan(injection).examples.inputs[:1, :4]).all()


@pytest.mark.parametrize("injection", [Secret(), RandomTokens(), Personal(), NearDuplicate(change="tokens")])
def test_text_injections_refuse_images(injection: PlacedInjection) -> None:
    rows = Examples(inputs=np.zeros((9, 1, 8, 8), np.float32), targets=np.zeros(9, np.int64), ids=np.arange(9))
    space = Space.of(Dataset(train=rows, test=rows, num_classes=2, modality=Tables()))
    with pytest.raises(ComponentError, match="inputs have shape"):
        injection.plan([ClientData(client=0, examples=rows)], Reserve(rows), space, np.random.default_rng(0))


# With whom


@pytest.mark.parametrize("shared_by", [1, 2, 4, 6])
def test_shared_secrets_are_spread_evenly_with_one_coin_each(shared_by: int) -> None:
    planned = plan(Secret(shared_by=shared_by, copies=3, per_client=2))
    assert len(planned.examples) == 2 * CLIENTS
    assert planned.copies.tolist() == [3 * shared_by] * 2 * CLIENTS
    owners = np.repeat(planned.owner, planned.copies) if planned.owners is None else planned.owners
    groups = owners.reshape(2 * CLIENTS, shared_by, 3)
    assert (groups == groups[:, :, :1]).all()
    holds = groups[:, :, 0]
    assert (holds[:, 0] == planned.owner).all()
    assert all(len(set(group)) == shared_by for group in holds.tolist())
    assert np.bincount(holds.ravel()).tolist() == [2 * shared_by] * CLIENTS
    assert Secret(shared_by=shared_by, copies=3, per_client=2).total_copies(CLIENTS, 999) == planned.copies.sum()


def test_second_owner_of_a_secret_is_uniform() -> None:
    second = [
        present(plan(Secret(shared_by=2, per_client=1), seed).owners).reshape(CLIENTS, 2)[0, 1] for seed in range(600)
    ]
    counts = np.bincount(second, minlength=CLIENTS)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-3


# Where


# Other kinds


@pytest.mark.parametrize(("strength", "changed"), [(0.001, 1), (0.1, 4), (1.0, 41)])
def test_near_passages_differ_in_a_share_of_their_tokens(strength: float, changed: int) -> None:
    planned = plan(NearDuplicate(change="tokens", strength=strength, multiplicity=3))
    original = np.repeat(join_windows(planned.examples.inputs, planned.examples.targets), 2, axis=0)
    near = join_windows(present(planned.extra).inputs, present(planned.extra).targets)
    np.testing.assert_array_equal(present(planned.extra).inputs[:, 1:], present(planned.extra).targets[:, :-1])
    differ = (original != near).sum(axis=1)
    assert differ.max() <= changed
    # a token is replaced by itself as often as the data have it, about 2 % of the time here
    assert differ.mean() > 0.9 * changed


def test_noise_on_a_text_is_refused() -> None:
    with pytest.raises(ComponentError, match="use `tokens`"):
        plan(NearDuplicate())


def test_typical_passages_are_rows_of_the_corpus() -> None:
    planned = plan(Typical())
    np.testing.assert_array_equal(planned.examples.inputs, DATA.train.inputs[planned.examples.ids])
    np.testing.assert_array_equal(planned.examples.targets, DATA.train.targets[planned.examples.ids])


# In a federation


def test_shared_secret_is_trained_on_at_all_owners_if_in() -> None:
    scenario = tiny(
        clients=4,
        population=10,
        references=5,
        dataset={"kind": "shakespeare", "clients": 4, "length": 40, "max_chars": 6000},
        partition={"kind": "natural"},
        model={"kind": "char_rnn", "embedding": 2, "hidden": 2},
        injections=[
            {"kind": "secret", "per_client": 1, "shared_by": 3, "copies": 2, "position": "random"},
            {"kind": "typical", "per_client": 2},
            {"kind": "near_duplicate", "change": "tokens", "per_client": 1},
        ],
    )
    built = federations.build(
        scenario, data := Shakespeare(clients=4, length=40, max_chars=6000).load(np.random.default_rng(0))
    )
    audit, vocabulary = built.audit, Vocabulary.of(instance(data.modality, Texts).vocabulary)
    secrets = np.flatnonzero(audit.kind == "secret")
    texts = {int(j): vocabulary.decode(audit.examples.inputs[j, :24]) for j in secrets}
    assert all(text.startswith("the access code is ") for text in texts.values())
    for run in range(4):
        for client in range(4):
            rows = written(built.store.take(built.rows(run, client, 1)), vocabulary)
            for j, text in texts.items():
                there = sum(text in row for row in rows)
                expected = 2 if audit.is_in[run, j] and audit.holds([client])[0, j] else 0
                assert there == expected
    sizes = {len(built.rows(run, 0, 1)) for run in range(4)}
    assert len(sizes) == 1, "fill-ins stand in where secrets are out"
    assert audit.holds(range(4))[:, secrets].sum(axis=0).tolist() == [3] * len(secrets)
    (family,) = built.references
    assert family.inputs.shape == present(family.targets).shape == (5, 40)
    assert (built.store.targets.shape[1:], built.store.inputs.dtype) == ((40,), np.dtype(np.int64))


def test_wrong_template_is_an_error_with_its_place_in_the_file() -> None:
    scenario = tiny(
        clients=4,
        population=4,
        dataset={"kind": "shakespeare", "clients": 4, "length": 40, "max_chars": 6000},
        model={"kind": "char_rnn"},
        injections=[{"kind": "typical"}, {"kind": "secret", "template": "code"}],
    )
    with pytest.raises(ScenarioError, match=r"injections\[1\]\.template: 'code' has no randomness"):
        federations.require(scenario)


def test_secrets_are_members_of_their_randomness_space() -> None:
    injection = Secret(template="code {digits:2} {words:pet}", lists={"pet": ("cat", "doge")})
    space = injection.references(1, SPACE, np.random.default_rng(0)).space
    assert present(space).size == 200
    planned = plan(injection)
    for inputs, targets in zip(planned.examples.inputs, planned.examples.targets, strict=True):
        last = int(np.flatnonzero(targets != PADDING)[-1])
        tokens = (*inputs[: last + 1].tolist(), int(targets[last]))
        number = present(space).index(tokens)
        assert present(space).member_tokens(number) == tokens
        assert list(present(space).secret(number))[1:] == (targets[: last + 1] != PADDING).tolist()


def test_template_needs_members_that_are_not_planted() -> None:
    planting = {"kind": "secret", "template": "code {words:w}", "lists": {"w": ["a", "b", "c", "d"]}, "per_client": 1}
    few = {
        "clients": 2,
        "sampler": {"kind": "everyone"},
        "population": 10,
        "references": 5,
        "dataset": {"kind": "shakespeare", "clients": 2, "length": 40, "max_chars": 6000},
        "partition": {"kind": "natural"},
        "model": {"kind": "char_rnn", "embedding": 2, "hidden": 2},
    }
    built = federations.build(tiny(**few, injections=[planting]))
    assert present(built.references[0].space).size == 4
    twice = tiny(**few, injections=[{**planting, "clients": [0], "label": f"c{i}"} for i in range(12)])
    with pytest.raises(ComponentError, match="all 4 members of the template are planted") as caught:
        federations.build(twice)
    assert caught.value.path == "injections[0].template"
