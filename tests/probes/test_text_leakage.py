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
from torch import nn

from fedmem.apps.attack import Known, attack
from fedmem.attacks._soft_tokens import ROUNDING, Soft, may_stand, slopes_at, slopes_of, were_read
from fedmem.attacks.tag import Tag
from fedmem.contracts.arrays import IntArray
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import Reading
from fedmem.errors import ComponentError, ScenarioError, TargetError
from fedmem.execution.run import run
from fedmem.federation import build
from fedmem.modalities.text.windows import inputs_and_targets, texts
from fedmem.modalities.texts import Texts
from fedmem.models.char_rnn import CharRnn
from fedmem.models.transformer import Transformer
from fedmem.probes._cases import is_example_itself
from fedmem.probes.information import Information
from fedmem.probes.leakage import Leakage
from fedmem.reporting.page import report
from fedmem.reporting.text_sheets import escape_invisible, reconstructed_rows
from fedmem.results.read import read
from strategies._rule import share, weighted_mean
from tests.lab import Lab, gradient_of, parameters
from tests.language import VOCABULARY, digits, text_federation
from tests.narrowing import present
from tests.tiny import tiny

V, L = 30, 8


def network(model: Any = None, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return (model or Transformer(width=16, heads=2, layers=1)).build((L,), V)


def windows(count: int, seed: int = 0, lengths: Sequence[int] = ()) -> IntArray:
    """Texts of L + 1 tokens, or of so many."""
    found = np.random.default_rng(seed).integers(V, size=(count, L + 1))
    for row, length in enumerate(lengths):
        found[row, length:] = -1
    return found


def target_of(model: nn.Module, truth: IntArray, scale: float = 1.0) -> GradientTarget:
    inputs, targets = inputs_and_targets(truth)
    params = parameters(model)
    gradient = gradient_of(model, params, inputs, targets)
    return GradientTarget(
        model=model,
        params=params,
        gradient={name: scale * value for name, value in gradient.items()},
        num_images=len(truth),
        input_shape=(L,),
        target_shape=(L,),
        num_classes=V,
        modality=Texts(),
        knows="",
    )


def attacked(target: GradientTarget, **fields: Any) -> tuple[IntArray, float]:
    """The windows that come back, and the distance."""
    tag = Tag(**{"steps": 120, "lr": 0.3, "vocabulary": "touched", **fields})
    (found,) = tag.reconstruct([target], [np.random.default_rng(1)])
    assert found.inputs.dtype == np.int64
    return texts(found.inputs, found.labels), found.distance


def test_a_text_comes_back_word_for_word_with_its_end_and_the_token_that_is_only_asked_for() -> None:
    for truth in (windows(1), windows(1, 1), windows(1, 2, [6]), windows(1, 4, [6])):
        found, distance = attacked(target_of(network(), truth))
        np.testing.assert_array_equal(found, truth)
        assert distance < 1e-9, "the tokens explain the whole gradient"


def test_a_gradient_of_the_wrong_sign_or_scale_gives_no_text_and_its_distance_tells() -> None:
    truth = windows(1)
    for scale in (-1.0, 0.2):
        found, distance = attacked(target_of(network(), truth, scale))
        assert distance > 0.1
        assert (found == truth).mean() < 1


def test_shares_that_are_decided_have_the_gradient_of_training() -> None:
    """Of whole and of short texts; the mean over all tokens would be another one."""
    truth, target = windows(3, 3, [L + 1, 4, 6]), target_of(network(), windows(3, 3, [L + 1, 4, 6]))
    tokens = torch.full((3, L + 1, V), -1e4)
    tokens.scatter_(2, torch.from_numpy(np.maximum(truth, 0))[..., None], 1e4)
    ends = torch.full((3, L), -1e4)
    ends[torch.arange(3), torch.from_numpy((truth >= 0).sum(1) - 2)] = 1e4
    soft = Soft(tokens=tokens, ends=ends)
    everything = torch.ones((L + 1, V), dtype=torch.bool)
    np.testing.assert_array_equal(soft.most_probable_tokens(everything), truth)
    for found in (slopes_of(target, "tokens", soft, everything), slopes_at(target, truth)):
        for name, value in target.gradient.items():
            torch.testing.assert_close(found[name].detach(), value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_recurrent_kernels_can_be_differentiated_twice(cell: Any) -> None:
    """The slope of a matching distance against small steps, in the embeddings that a search moves."""
    target = target_of(network(CharRnn(cell=cell, embedding=4, hidden=6)), windows(1))
    everything = torch.ones((L + 1, V), dtype=torch.bool)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((1, L + 1, V)).astype(np.float32))
    start = Soft.start(10 * noise)

    def distance(tokens: torch.Tensor) -> torch.Tensor:
        found = slopes_of(target, "embedding", Soft(tokens=tokens, ends=start.ends), everything)
        return torch.stack([(found[key] - value).square().sum() for key, value in target.gradient.items()]).sum()

    tokens = start.tokens.clone().requires_grad_()
    (slope,) = torch.autograd.grad(distance(tokens), tokens)
    way = slope / slope.norm()
    step = 0.05
    ahead, back = (float(distance((tokens + sign * step * way).detach()).detach()) for sign in (1, -1))
    assert (ahead - back) / (2 * step) == pytest.approx(float(slope.norm()), rel=0.02)


def test_what_was_never_read_is_no_candidate_and_the_last_token_may_be_any() -> None:
    truth = np.array([[1, 2, 1, 2, 1, 2, 1, 2, 9]])
    for steps in (1, 3):
        inputs = attacked(target_of(network(), truth), steps=steps)[0][0, :L]
        assert inputs[0] in {1, 2}, "the first token is read"
        assert set(inputs.tolist()) <= {-1, 1, 2, 9}, "rows of the embedding without a gradient were not there"
    assert not set(attacked(target_of(network(), truth), steps=1, vocabulary="all")[0][0, :L].tolist()) <= {1, 2, 9}


def test_a_token_that_ends_a_short_text_and_that_nobody_reads_may_stand_inside_a_row() -> None:
    truth = np.where(windows(5, lengths=[L + 1, 6, L + 1, L + 1, L + 1]) == 9, 3, windows(5, lengths=[L + 1, 6]))
    truth[1, 5] = 9
    target = target_of(network(), truth)
    read = were_read(target, "tokens")
    assert set(torch.nonzero(read)[:, 0].tolist()) == set(
        inputs_and_targets(truth)[0][inputs_and_targets(truth)[1] >= 0].tolist()
    )
    assert not read[9]
    allowed = may_stand(target, "tokens", read)
    assert allowed[1:, 9].all()
    assert not allowed[0, 9]
    assert allowed[-1].all()
    assert not allowed[:-1].all(1).any(), "most of what was neither read nor asked for stays out"
    opposite = {name: -value for name, value in target.gradient.items()}
    assert not may_stand(replace(target, gradient=opposite), "tokens", read)[1, 9], "the sign is that of a gradient"
    silent = {name: value for name, value in target.gradient.items() if name != "output.bias"}
    assert may_stand(replace(target, gradient=silent), "tokens", read)[1:].all(), "without a bias nothing is known"


@pytest.mark.parametrize("sizes", [[55, 63, 55, 52], [69, 57, 64, 51]])
def test_rounding_in_the_mean_of_clients_touches_no_token(sizes: list[int]) -> None:
    """47 of 97 tokens, read by four clients whose models are averaged in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Transformer(width=16, heads=2, layers=1).build((15,), 97)
    before, tokens = parameters(model), np.random.default_rng(0).permutation(97)[:47]
    rows = np.resize(tokens, 120).reshape(4, 2, 15)
    sent = []
    for own in rows:
        slopes = gradient_of(model, before, own, np.roll(own, -1, axis=1))
        sent.append({name: value - 0.1 * slopes[name] for name, value in before.items()})
    weights = share(torch.tensor([sizes], dtype=torch.float64), torch.ones((1, 4), dtype=torch.bool))
    after = weighted_mean({name: torch.stack([one[name] for one in sent])[None] for name in before}, weights)
    update = {name: after[name][0].double() - value.double() for name, value in before.items()}
    target = GradientTarget(
        model=model,
        params=before,
        gradient={name: -10 * value for name, value in update.items()},
        update=update,
        num_images=8,
        input_shape=(15,),
        target_shape=(15,),
        num_classes=97,
        modality=Texts(),
        knows="",
        clients=4,
    )
    assert int((update["tokens.weight"] != 0).any(1).sum()) > 90, "rounding moves nearly all"
    assert torch.nonzero(were_read(target, "tokens"))[:, 0].tolist() == sorted(tokens.tolist())
    least = update["tokens.weight"].abs().amax(1)[torch.from_numpy(tokens)].min()
    assert least > 100 * 4 * ROUNDING * before["tokens.weight"].abs().mean(), "what is read moves far more than that"


def test_a_weight_of_zero_that_moved_at_all_was_touched_and_one_client_is_not_rounded() -> None:
    target = target_of(network(), windows(1))
    weight = target.params["tokens.weight"].clone()
    weight[3] = 0.0
    move = torch.zeros_like(weight, dtype=torch.float64)
    move[3, 0], move[5] = 1e-30, ROUNDING * weight[5]
    params, update = {**target.params, "tokens.weight": weight}, {**target.gradient, "tokens.weight": move}
    for clients, wanted in ((1, [3, 5]), (2, [3])):
        found = were_read(replace(target, params=params, update=update, clients=clients), "tokens")
        assert torch.nonzero(found)[:, 0].tolist() == wanted
    still = {**update, "tokens.weight": torch.zeros_like(move)}
    assert were_read(replace(target, params=params, update=still, clients=2), "tokens").all(), "nothing is known"


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_an_empty_gradient_has_no_distance_and_the_targets_beside_it_do_not_notice(value: float) -> None:
    target = target_of(network(), windows(1))
    blank = replace(target, gradient={name: torch.full_like(g, value) for name, g in target.gradient.items()})
    tag = Tag(steps=20, lr=0.3)
    found, beside = tag.reconstruct([blank, target], [np.random.default_rng(1) for _ in range(2)])
    (alone,) = tag.reconstruct([target], [np.random.default_rng(1)])
    assert np.isnan(found.distance)
    assert found.inputs.shape == found.labels.shape == (1, L)
    np.testing.assert_array_equal(beside.inputs, alone.inputs)
    assert beside.distance == alone.distance


def test_next_tokens_are_never_known_and_outputs_have_to_be_those_of_places() -> None:
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


def test_an_attack_that_offers_the_usual_tokens_has_no_gain_over_them() -> None:
    built = text_federation()
    secrets = built.references[0]
    answer = texts(secrets.inputs, present(secrets.targets))
    usual = np.array([[np.bincount(column + 1).argmax() - 1 for column in answer.T]])
    for out in (False, True):
        gains = values(readings(built, usual), "similarity_gain", out=out)
        assert gains
        assert max(gains) <= 0
        assert values(readings(built, usual), "beats_prior", out=out) == [0.0]


def test_whoever_draws_from_a_family_has_no_gain_over_priors_that_draw_as_often() -> None:
    built = built_with()
    family, rng = built.references[0], np.random.default_rng(0)
    rows, gains = texts(family.inputs, present(family.targets)), []
    for _ in range(40):
        guesses = rows[rng.permutation(len(rows))[:6]]
        gains += values(readings(built, guesses), "similarity_gain")
    assert np.mean(gains) < 0.01


def test_next_tokens_are_counted_among_as_many_as_there_are_and_a_guess_knows_how_often_they_occur() -> None:
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


def test_a_secret_whose_copies_ask_for_more_is_sought_in_them_and_one_over_other_tokens_is_not() -> None:
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


def test_alignment_of_texts_is_a_cosine_by_hand_and_nothing_is_sensitive() -> None:
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


TEXTS: dict[str, Any] = {
    "dataset": {"kind": "shakespeare", "clients": 5, "length": 12, "max_chars": 2000},
    "partition": {"kind": "natural"},
    "model": {"kind": "transformer", "width": 8, "heads": 2, "layers": 1},
    "injections": [
        {"kind": "secret", "template": "<b>{digits:3}", "per_client": 2},
        {"kind": "typical", "per_client": 2},
    ],
    "population": 10,
    "references": 20,
}


def test_a_run_shows_the_texts_beside_the_true_ones_and_escapes_them(tmp_path: Path) -> None:
    probe = {"kind": "leakage", "attack": {"kind": "tag", "steps": 2}, "victims": 2, "runs": 2, "max_images": 2}
    folder = run(tiny(**TEXTS, rounds=2, probes=[probe]), out=tmp_path)
    shown = reconstructed_rows(read(folder))
    assert {row[1] for row in shown} == {"secret", "typical"}
    assert {row[0] for row in shown} >= {"local: a client's real message", "global: the aggregate"}
    assert all(row[2].startswith("<b>") for row in shown if row[1] == "secret")
    page = report(folder).read_text()
    assert "Reconstructed texts" in page
    assert "<code>&lt;b&gt;" in page
    assert "<code><b>" not in page
    assert "reconstruction, similarity of texts over the best prior" in page
    assert not (folder / "reconstructions.png").exists()
    for row in shown:
        assert all(escape_invisible(text).isprintable() for text in row[2:5])
