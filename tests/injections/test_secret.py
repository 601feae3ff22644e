"""Secrets in texts: what they look like, what is asked for, with whom they are and where; each number by hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.audit_set import InjectionPlan
from fedmem.contracts.data import ClientData, Dataset, Examples, Space
from fedmem.contracts.injection import Injection
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
from fedmem.modalities.text.vocabulary import UNKNOWN, Vocabulary
from fedmem.modalities.text.windows import PADDING, inputs_and_targets, join_windows, prefix_and_start
from fedmem.modalities.texts import Texts
from tests.narrowing import instance, present
from tests.tiny import tiny

LENGTH, CLIENTS, ROWS = 40, 6, 30
CHARACTERS = Vocabulary.learn("characters", [])


def corpus(vocabulary: Vocabulary = CHARACTERS, seed: int = 0) -> Dataset:
    """Rows of random tokens, the later ones rarer; none is a digit, so that digits are those of secrets."""
    letters = np.array([k for k, token in enumerate(vocabulary.tokens) if k and not token.isdigit()])
    odds = np.arange(len(letters), 0, -1.0)
    tokens = np.random.default_rng(seed).choice(letters, size=(CLIENTS * ROWS, LENGTH + 1), p=odds / odds.sum())
    inputs, targets = inputs_and_targets(tokens)
    rows = Examples(inputs=inputs, targets=targets, ids=np.arange(len(inputs)))
    return Dataset(train=rows, test=rows, num_classes=len(vocabulary), modality=Texts(vocabulary=vocabulary.tokens))


DATA = corpus()
SPACE = Space.of(DATA)


def people(data: Dataset = DATA, sizes: Sequence[int] = (ROWS,) * CLIENTS) -> list[ClientData]:
    return [
        ClientData(client=k, examples=data.train.take(np.arange(ROWS * k, ROWS * k + size)))
        for k, size in enumerate(sizes)
    ]


def plan(
    injection: Injection, seed: int = 0, clients: Sequence[ClientData] | None = None, space: Space = SPACE
) -> InjectionPlan:
    return injection.plan(clients or people(), Reserve(DATA.train), space, np.random.default_rng(seed))


def written(examples: Examples, vocabulary: Vocabulary = CHARACTERS) -> list[str]:
    """Each row as text, padding left out."""
    return [vocabulary.decode(row[row != PADDING]) for row in join_windows(examples.inputs, examples.targets)]


def asked_of(examples: Examples, vocabulary: Vocabulary = CHARACTERS) -> list[str]:
    """Of each row what is asked for."""
    return [vocabulary.decode(row[row != PADDING]) for row in examples.targets]


def texts(planned: InjectionPlan) -> list[str]:
    """The text of each audit example: its inputs, and the last token of its targets."""
    found = []
    for inputs, targets in zip(planned.examples.inputs, planned.examples.targets, strict=True):
        last = int(np.flatnonzero(targets != PADDING)[-1])
        found.append(CHARACTERS.decode([*inputs[: last + 1], targets[last]]))
    return found


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


def test_every_member_has_the_same_odds_and_no_two_secrets_are_alike() -> None:
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


def test_words_are_tokens_where_the_vocabulary_has_words() -> None:
    vocabulary = Vocabulary.learn("words", ["the access code is rome oslo"])
    space = Space.of(corpus(vocabulary))
    injection = Secret(template="the code is {digits:2} {words:city}", lists={"city": ("Rome", "Oslo")})
    found = asked_of(plan(injection, space=space).examples, vocabulary)
    assert all(len(own.split()) == 3 and own.split()[2] in ("rome", "oslo") for own in found)


@pytest.mark.parametrize(
    ("fields", "path", "said"),
    [
        ({"template": "the code is 7"}, "template", "no randomness"),
        ({"template": "a {words:one}", "lists": {"one": ("x",)}}, "template", "no randomness"),
        ({"template": "{digits:6} is it"}, "template", "begin with some text"),
        ({"template": "the code {digits"}, "template", "is no template"),
        ({"template": "the code {digits}"}, "template", "should say how many"),
        ({"template": "the code {digit:6}"}, "template", "did you mean 'digits'"),
        ({"template": "code € {digits:6}"}, "template", "character '€', number 6"),
        ({"template": "the {words:citty}", "lists": {"city": ("a", "b")}}, "lists", "did you mean 'city'"),
        ({"template": "the {words:c}", "lists": {"c": ("Ä", "b")}}, "lists.c", "character 'Ä', number 1"),
        ({"template": "the {words:c}", "lists": {"c": ()}}, "lists.c", "the list is empty"),
        ({"template": "the {words:c}", "lists": {"c": ("b", "b")}}, "lists.c", "the same tokens"),
        ({"template": "the code is {digits:31}"}, "template", "up to 43 tokens, but a row has 41"),
        ({"template": "the code is {digits:1}"}, "template", "24 different secrets .* 10 members"),
        ({"shared_by": 7}, "shared_by", "7 clients should hold each secret, but this injection has 6"),
    ],
)
def test_wrong_secrets_are_told(fields: dict[str, Any], path: str, said: str) -> None:
    with pytest.raises(ComponentError, match=said) as caught:
        plan(Secret(**fields))
    assert caught.value.path == f"injections.{path}"


@pytest.mark.parametrize("injection", [Secret(), RandomTokens(), Personal(), NearDuplicate(change="tokens")])
def test_pictures_are_no_text(injection: PlacedInjection) -> None:
    rows = Examples(inputs=np.zeros((9, 1, 8, 8), np.float32), targets=np.zeros(9, np.int64), ids=np.arange(9))
    space = Space.of(Dataset(train=rows, test=rows, num_classes=2, modality=Tables()))
    with pytest.raises(ComponentError, match="inputs have shape"):
        injection.plan([ClientData(client=0, examples=rows)], Reserve(rows), space, np.random.default_rng(0))


# With whom


@pytest.mark.parametrize("shared_by", [1, 2, 4, 6])
def test_each_client_holds_equally_many_secrets_under_one_coin_each(shared_by: int) -> None:
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


def test_who_else_holds_it_is_anybody() -> None:
    second = [
        present(plan(Secret(shared_by=2, per_client=1), seed).owners).reshape(CLIENTS, 2)[0, 1] for seed in range(600)
    ]
    counts = np.bincount(second, minlength=CLIENTS)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-3


def test_a_share_of_the_rows_is_replaced_by_as_many_copies() -> None:
    injection = Secret(share=0.1, shared_by=2, per_client=1)
    clients = people(sizes=(30, 20, 4, 30, 10, 30))
    planned = plan(injection, clients=clients)
    for group, total in zip(
        np.split(present(planned.owners), np.cumsum(planned.copies)[:-1]), planned.copies, strict=True
    ):
        counts = {int(k): int(n) for k, n in zip(*np.unique(group, return_counts=True), strict=True)}
        assert counts == {k: {0: 3, 1: 2, 2: 1, 3: 3, 4: 1, 5: 3}[k] for k in counts}
        assert total == sum(counts.values())
    assert planned.copies.sum() <= injection.total_copies(CLIENTS, sum(len(one.examples) for one in clients))


# Where


@pytest.mark.parametrize(("position", "places"), [("start", {0}), ("end", {31}), ("random", set(range(32)))])
def test_copies_stand_in_rows_of_their_owner(
    position: Literal["alone", "start", "end", "random"], places: set[int]
) -> None:
    planned = plan(Secret(template="code {digits:5}", position=position, copies=40, shared_by=2, per_client=1))
    own = [set(map(tuple, join_windows(one.examples.inputs, one.examples.targets).tolist())) for one in people()]
    at = []
    subject = np.repeat(np.arange(CLIENTS), planned.copies)
    rows = written(present(planned.extra))
    for slot, owner, j in zip(present(planned.copy_index), present(planned.owners), subject, strict=True):
        secret = texts(planned)[j]
        at.append(rows[slot].index(secret))
        rest = rows[slot].replace(secret, "")
        hosts = [CHARACTERS.decode(host) for host in own[owner]]
        assert any(host[: at[-1]] + host[at[-1] + len(secret) :] == rest for host in hosts)
    assert set(at) == places
    assert len(set(present(planned.copy_index).tolist())) == len(present(planned.extra)) == planned.copies.sum()
    per_host: dict[int, list[int]] = {}
    for slot, owner in zip(present(planned.copy_index), present(planned.owners), strict=True):
        per_host.setdefault(int(owner), []).append(int(slot))
    assert all(len(slots) == 80 for slots in per_host.values())


def test_a_client_of_short_rows_is_told() -> None:
    short = replace(DATA.train, targets=np.where(np.arange(LENGTH) == LENGTH - 1, PADDING, DATA.train.targets))
    clients = [ClientData(client=3, examples=short.take(np.arange(ROWS)))]
    with pytest.raises(ComponentError, match="client 3 has no row of 41 tokens") as caught:
        plan(Secret(position="random"), clients=clients)
    assert caught.value.path == "injections.position"
    assert len(plan(Secret(), clients=clients).examples) == 4


# Other kinds


def test_random_tokens_have_the_frequencies_of_the_data() -> None:
    injection = RandomTokens(tokens=5)
    fresh = injection.references(4000, SPACE, np.random.default_rng(0))
    tokens = np.concatenate([fresh.inputs[:, :1], present(fresh.targets)[:, :4]], axis=1)
    counts = np.bincount(tokens.ravel(), minlength=len(CHARACTERS))
    there = SPACE.frequencies > 0
    assert counts[~there].sum() == 0
    assert stats.chisquare(counts[there], SPACE.frequencies[there] * counts.sum()).pvalue > 1e-3
    assert stats.chisquare(counts[there]).pvalue < 1e-3, "uniform ones would be seen"
    assert (present(fresh.targets)[:, 4:] == PADDING).all()
    assert (fresh.inputs[:, 1:5] == tokens[:, 1:]).all()
    planned = plan(injection)
    assert planned.extra is None
    assert (planned.examples.targets[:, :4] != PADDING).all()
    with pytest.raises(ComponentError, match="up to 42 tokens"):
        plan(RandomTokens(tokens=42))


def test_what_is_unknown_is_no_canary() -> None:
    words = Vocabulary.learn("words", ["b a"])
    data = corpus(words)
    inputs = np.where(np.arange(len(data.train))[:, None] % 2 == 0, 0, data.train.inputs)
    space = Space.of(replace(data, train=replace(data.train, inputs=inputs, targets=inputs)))
    assert space.frequencies[words.tokens.index(UNKNOWN)] > 0.4
    assert plan(RandomTokens(), space=space).examples.inputs[:, :5].min() > 0


def test_records_ask_for_one_field_that_no_other_tells() -> None:
    injection = Personal(template="{{{words:first} of {words:city}}} has {words:blood}, {digits:4}", asks="city")
    planned = plan(injection, space=SPACE)
    cities = asked_of(planned.examples)
    for text, city in zip(texts(planned), cities, strict=True):
        assert text.startswith("{")
        assert text.endswith(f" of {city}")
    fresh = injection.references(6000, SPACE, np.random.default_rng(0))
    first = fresh.inputs[:, 1]
    cities = [CHARACTERS.decode(row[row != PADDING]) for row in present(fresh.targets)]
    own = np.unique(cities, return_inverse=True)[1]
    table = np.zeros((first.max() + 1, own.max() + 1))
    np.add.at(table, (first, own), 1)
    table = table[table.sum(1) > 0]
    assert table.shape[1] == 22
    assert stats.chi2_contingency(table).pvalue > 1e-3
    # what follows the other fields, for a search: every city, and nothing behind it
    for inputs, targets, city in zip(
        planned.examples.inputs, planned.examples.targets, asked_of(planned.examples), strict=True
    ):
        tokens, start = prefix_and_start(inputs, targets)
        values = present(present(fresh.records).with_prefix(tokens[:start]))
        written_out = [CHARACTERS.decode(np.array(values.member_tokens(i)[start:])) for i in range(values.size)]
        assert len(set(written_out)) == 22
        assert written_out[values.index(tokens)] == city
    with pytest.raises(ComponentError, match=r"no place 'citty'.*did you mean 'city'"):
        plan(Personal(asks="citty"), space=Space.of(long_rows()))
    with pytest.raises(ComponentError, match="a row has 41"):
        plan(Personal())


def long_rows() -> Dataset:
    return replace(
        DATA,
        train=Examples(inputs=np.ones((4, 80), np.int64), targets=np.ones((4, 80), np.int64), ids=np.arange(4)),
    )


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


def test_the_federation_trains_on_a_shared_secret_at_all_its_holders_where_it_is_in() -> None:
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


def test_the_place_in_the_file_is_told() -> None:
    scenario = tiny(
        clients=4,
        population=4,
        dataset={"kind": "shakespeare", "clients": 4, "length": 40, "max_chars": 6000},
        model={"kind": "char_rnn"},
        injections=[{"kind": "typical"}, {"kind": "secret", "template": "code"}],
    )
    with pytest.raises(ScenarioError, match=r"injections\[1\]\.template: 'code' has no randomness"):
        federations.require(scenario)


def test_secrets_are_members_of_the_space_that_they_are_compared_with() -> None:
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


def test_some_members_of_a_template_must_be_left_to_compare_with() -> None:
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


def test_no_value_of_the_field_that_is_asked_for_may_begin_another() -> None:
    with pytest.raises(ComponentError, match="one value of 'blood' is the beginning of another"):
        plan(Personal(template="he has {words:blood}", lists={"blood": ("A", "AB", "O")}, asks="blood"), space=SPACE)
    plan(Personal(template="{{{words:first} has {words:blood}", asks="blood", per_client=1), space=SPACE)
    # a field that is not asked for may be as it likes
    mixed = Personal(template="he is {words:w} in {words:city}", lists={"w": ("on", "one")}, asks="city", per_client=1)
    plan(mixed, space=SPACE)
