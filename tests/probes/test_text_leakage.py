"""What updates of language models give away: whole texts to an attack, and nothing to one that does not look."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.apps.attack import Known, attack
from fedmem.attacks.tag import Tag
from fedmem.contracts.arrays import IntArray
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import Reading
from fedmem.errors import ComponentError, ScenarioError, TargetError
from fedmem.federation import build
from fedmem.modalities.text.windows import inputs_and_targets, texts
from fedmem.probes._cases import is_example_itself
from fedmem.probes.information import Information
from fedmem.probes.leakage import Leakage
from tests.lab import Lab, gradient_of, parameters
from tests.language import VOCABULARY, digits, text_federation
from tests.narrowing import present
from tests.probes.text_leakage_helpers import TEXTS, L, V, network, target_of, windows
from tests.tiny import tiny


def attacked(target: GradientTarget, **fields: Any) -> tuple[IntArray, float]:
    """The windows that come back, and the distance."""
    tag = Tag(**{"steps": 120, "lr": 0.3, "vocabulary": "touched", **fields})
    (found,) = tag.reconstruct([target], [np.random.default_rng(1)])
    assert found.inputs.dtype == np.int64
    return texts(found.inputs, found.labels), found.distance


def test_text_is_recovered_with_its_end_and_last_asked_token() -> None:
    for truth in (windows(1), windows(1, 1), windows(1, 2, [6]), windows(1, 4, [6])):
        found, distance = attacked(target_of(network(), truth))
        np.testing.assert_array_equal(found, truth)
        assert distance < 1e-9, "the tokens explain the whole gradient"


def test_gradient_of_wrong_sign_or_scale_gives_no_text() -> None:
    truth = windows(1)
    for scale in (-1.0, 0.2):
        found, distance = attacked(target_of(network(), truth, scale))
        assert distance > 0.1
        assert (found == truth).mean() < 1


def test_unread_tokens_are_no_candidates_except_at_the_end() -> None:
    truth = np.array([[1, 2, 1, 2, 1, 2, 1, 2, 9]])
    for steps in (1, 3):
        inputs = attacked(target_of(network(), truth), steps=steps)[0][0, :L]
        assert inputs[0] in {1, 2}, "the first token is read"
        assert set(inputs.tolist()) <= {-1, 1, 2, 9}, "rows of the embedding without a gradient were not there"
    assert not set(attacked(target_of(network(), truth), steps=1, vocabulary="all")[0][0, :L].tolist()) <= {1, 2, 9}


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_empty_text_gradient_is_nan_and_leaves_others_unchanged(value: float) -> None:
    target = target_of(network(), windows(1))
    blank = replace(target, gradient={name: torch.full_like(g, value) for name, g in target.gradient.items()})
    tag = Tag(steps=20, lr=0.3)
    found, beside = tag.reconstruct([blank, target], [np.random.default_rng(1) for _ in range(2)])
    (alone,) = tag.reconstruct([target], [np.random.default_rng(1)])
    assert np.isnan(found.distance)
    assert found.inputs.shape == found.labels.shape == (1, L)
    np.testing.assert_array_equal(beside.inputs, alone.inputs)
    assert beside.distance == alone.distance


def test_known_labels_and_other_outputs_are_refused_for_texts() -> None:
    target = target_of(network(), windows(1))
    with pytest.raises(ComponentError, match="next tokens here, which are the text itself"):
        attacked(target, labels="known")
    with pytest.raises(TargetError, match="one output for each class"):
        attacked(replace(target, num_classes=V + 1))
    scenario = tiny(**TEXTS, probes=[{"kind": "leakage", "attack": {"kind": "tag", "labels": "known"}}])
    with pytest.raises(ScenarioError, match="write inferred") as error:
        build.build(scenario)
    assert [problem.path for problem in error.value.problems] == ["probes[0].attack.labels"]


# of the probe


@dataclass(frozen=True)
class Answers:
    """An attack that returns these windows, whatever it is shown."""

    windows: IntArray
    knows: tuple[str, ...] = ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        inputs, labels = inputs_and_targets(self.windows)
        return [Reconstruction(inputs=inputs, labels=labels, distance=0.0) for _ in targets]


def built_with(references: int = 40) -> Federation:
    """Secrets whose references are other members of their space."""
    found = text_federation()
    secrets, rng = found.audit.examples, np.random.default_rng(0)
    rows = np.array([secrets.inputs[0], *rng.permutation(secrets.inputs)])[1:]
    fresh = np.repeat(rows, references, axis=0)[:references]
    fresh[:, 1:3] = np.array(list(itertools.product(range(VOCABULARY), repeat=2)) * 2)[:references]
    targets = np.full_like(fresh, -1)
    targets[:, :2] = fresh[:, 1:3]
    targets[:, 2] = rng.integers(VOCABULARY, size=references)
    mine = {tuple(row) for row in texts(secrets.inputs, secrets.targets).tolist()}
    keep = [i for i, row in enumerate(texts(fresh, targets).tolist()) if tuple(row) not in mine]
    (own,) = found.references
    return replace(found, references=(replace(own, inputs=fresh[keep], targets=targets[keep]),))


def readings(built: Federation, answer: IntArray, run: int = 0, client: int = 0) -> list[Reading]:
    lab = Lab(federation=built)
    found = Leakage(attack=Answers(answer), first_step=False).observe(lab.local(runs=(run,), clients=(client,)), lab)
    return [reading for _, reading in found]


def values(found: Sequence[Reading], metric: str, *, out: bool = False) -> list[float]:
    return [r.value for r in found if r.metric == metric and r.subject and (r.labels.get("coin") == "out") == out]


def test_a_perfect_attack_gives_away_every_text_and_no_control() -> None:
    built = built_with()
    rows, peers = built.rows(0, 0, 2), len(built.references[0].inputs)
    truth = texts(built.store.inputs[rows], built.store.targets[rows])
    found = readings(built, truth[::-1])
    for metric in ("identified", "verbatim", "similarity", "tokens", "in_order", "in_place", "beats_prior"):
        assert values(found, metric) == [1.0], metric
    assert values(found, "similarity_gain")[0] > 0
    assert values(found, "identified", out=True) == values(found, "verbatim", out=True) == [0.0]
    (accuracy,) = [r.value for r in found if r.metric == "label_accuracy"]
    assert accuracy == 1.0
    assert {
        tuple(r.labels.get(name) for name in ("gallery", "peers", "kind")) for r in found if r.metric == "identified"
    } == {(peers, peers, "secret")}


def test_attack_that_returns_modal_tokens_has_no_gain() -> None:
    built = text_federation()
    secrets = built.references[0]
    answer = texts(secrets.inputs, present(secrets.targets))
    usual = np.array([[np.bincount(column + 1).argmax() - 1 for column in answer.T]])
    for out in (False, True):
        gains = values(readings(built, usual), "similarity_gain", out=out)
        assert gains
        assert max(gains) <= 0
        assert values(readings(built, usual), "beats_prior", out=out) == [0.0]


def test_draws_from_a_family_have_no_gain_over_equal_priors() -> None:
    built = built_with()
    family, rng = built.references[0], np.random.default_rng(0)
    rows, gains = texts(family.inputs, present(family.targets)), []
    for _ in range(40):
        guesses = rows[rng.permutation(len(rows))[:6]]
        gains += values(readings(built, guesses), "similarity_gain")
    assert np.mean(gains) < 0.01


def test_next_tokens_are_counted_and_guessed_by_frequency() -> None:
    built = text_federation()
    rows = built.rows(0, 0, 2)
    truth = texts(built.store.inputs[rows], built.store.targets[rows])
    asked_for = built.store.targets[rows]
    total = int((asked_for >= 0).sum())
    one = np.full((1, truth.shape[1]), -1)
    one[0, :2] = truth[0, 0], asked_for[asked_for >= 0][0]
    whole = {r.metric: r.value for r in readings(built, one) if not r.subject}
    assert whole["label_accuracy"] == pytest.approx(1 / total)
    common = np.bincount(asked_for[asked_for >= 0]).argmax()
    population = Examples(
        inputs=np.full_like(built.population.inputs[:1], common, shape=(3, truth.shape[1] - 1)),
        targets=np.full((3, truth.shape[1] - 1), common),
        ids=np.arange(3),
    )
    whole = {r.metric: r.value for r in readings(replace(built, population=population), one) if not r.subject}
    assert whole["label_accuracy.guess"] == pytest.approx((asked_for == common).sum() / total)


def with_copies(built: Federation, change: int) -> Federation:
    """Every secret is trained on as a row where all is asked; with `change`, as one with another first token."""
    rows = built.audit.examples
    whole = texts(rows.inputs, rows.targets)
    whole[:, 0] = (whole[:, 0] + change) % VOCABULARY
    inputs, targets = inputs_and_targets(whole)
    extra = Examples(inputs=inputs, targets=targets, ids=rows.ids)
    start = len(built.store)
    return replace(
        built, store=Examples.concatenate([built.store, extra]), trained_rows=start + np.arange(len(built.trained_rows))
    )


def test_secret_is_searched_only_in_copies_of_its_tokens() -> None:
    built = text_federation()
    assert is_example_itself(built).all()
    copies, hosts = with_copies(built, 0), with_copies(built, 1)
    assert is_example_itself(copies).all()
    assert not is_example_itself(hosts).any()
    # another last token, which no input reads, is another text
    ends = copies.store.targets.copy()
    ends[-len(copies.trained_rows) :][:, [2]] = (ends[-len(copies.trained_rows) :][:, [2]] + 1) % VOCABULARY
    assert not is_example_itself(replace(copies, store=replace(copies.store, targets=ends))).any()
    rows = copies.rows(0, 0, 2)
    found = readings(copies, texts(copies.store.inputs[rows], copies.store.targets[rows]))
    assert values(found, "verbatim") == [1.0]
    assert values(found, "verbatim", out=True) == [0.0]
    assert readings(hosts, windows(2)[:, :7] % VOCABULARY) == []


def test_text_alignment_is_a_cosine_without_sensitivity() -> None:
    """Where a copy asks for more than the example, its own loss is that of the copy."""
    built = with_copies(text_federation(digits(3, prefix=(0, 3))), 0)
    lab = Lab(federation=built)
    (local,) = lab.local(runs=(0,), clients=(0,))
    found = [reading for _, reading in Information(victims=3).observe([local], lab)]
    assert {reading.metric for reading in found} == {"alignment"}
    shown = [r for r in found if r.labels.get("layer") == "head"]
    assert {(r.labels.get("coin") == "out") for r in shown} == {True, False}
    update = {name: (local.before[name] - value).double() for name, value in local.sent.items()}
    for reading in shown:
        row = built.trained_rows[[int(reading.subject)]]
        own = gradient_of(built.model, local.before, built.store.inputs[row], built.store.targets[row])
        dot, first, second = (
            sum(float((a[name].double() * b[name].double()).sum()) for name in ("head.weight", "head.bias"))
            for a, b in ((update, own), (update, update), (own, own))
        )
        assert reading.value == pytest.approx(dot / (first * second) ** 0.5, abs=1e-4)
        audit = built.audit.examples.take(np.array([int(reading.subject)]))
        less = gradient_of(built.model, local.before, audit.inputs, audit.targets)
        assert not torch.allclose(less["head.bias"], own["head.bias"], atol=1e-4)


def test_a_saved_language_model_is_sent_to_the_probe(tmp_path: Path) -> None:
    model = network()
    before = parameters(model)
    after = {name: value + 0.01 for name, value in before.items()}
    known = Known(input_shape=(L,), num_classes=V, num_images=1, lr=0.1)
    with pytest.raises(TargetError, match="inside a scenario, by the probe leakage with the attack tag"):
        attack(before, after, model=model, attack=Tag(steps=1), known=known)
