"""Leakage of updates: reconstruction of audit examples from messages, sums, aggregates and first steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt

from fedmem.contracts.attack import ReconstructionAttack
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.contracts.reconstruction_sheet import ReconstructionSheet
from fedmem.contracts.validation_of_measures import reconstruct
from fedmem.probes._cases import VIEWS, Case, Scope
from fedmem.probes._leak_measures import ATTACK_LABELS, ATTACKED
from fedmem.probes._leakage_summary import summed_up
from fedmem.probes._measures import check_reconstruction, of_attack, of_victim
from fedmem.probes._victims import Victim, score, sheet


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """Attacks updates and scores how well the audit examples behind them come back, against the baseline guess.

    Four views, named by the label `view` of every reading; the label `knows` says what the adversary knows:

    - `message` (level local): what a client sent, as `g ~ -(sent - before) / (lr * steps)`. That is a gradient only if
      there was one step, and otherwise an approximation that the attack has to use;
    - `sum` (level sum): the same for the sum over some clients, which is all that secure aggregation lets a server see.
      It uses the mean of their steps, weighted as their models are;
    - `aggregate` (level global): the same of the server's step, for all images of the cohort together;
    - `first_step` (level local): the gradient of the same client's first batch alone, before any defence. Nobody in the
      federation sees it: a stronger adversary, and an upper bound on `message`.

    Attacks get what they declare to know and no more, and the label `knows` reports it.

    Victims are audit examples that are in and held by the attacked clients. They are also in the batch in question (for
    a message: in any batch of the round). The n true images of a batch are paired with the m reconstructed images by
    the Hungarian method on squared error. A victim with copies counts with the best of them. Readings of each victim,
    on inputs in [0, 1]:

    - `identified`: 1 where some reconstructed image is strictly nearer to the victim than any reconstructed image is to
      any image of the gallery, else 0. Nothing is matched on the truth first. So where the victim is exchangeable with
      its G peers in the gallery, chance is at most 1 / (G + 1). It is exactly that where the gallery has peers alone
      and ties cannot occur. Texts can tie, and a tie identifies no victim. The labels `gallery` and `peers` say how
      many. Canaries have the fresh references of their family, exactly their peers. Other examples have real images
      that are in no batch of the clients attacked: population, test set, rows of other clients. They count as peers of
      examples of the role `typical`. That is roughly right if clients see rows unchanged (where they do not, only
      canaries are identified). The peers of any other kind are the examples of the same kind that other clients hold;
      without any it is not identified;
    - `margin`: `psnr` minus that of the baseline guess, in dB. Above 0 the update leaked more than was known before.
      Below 0 it may still leak something, since the prior is chosen by the truth;
    - `beats_prior`: 1 where the margin is above 0, else 0;
    - `psnr`: 10 log10(1 / `mse`) in dB, capped at 100, higher is nearer;
    - `ssim`: structural similarity, -1..1, higher is nearer; only of images of at least 6 by 6 pixels;
    - `mse`: mean squared error, lower is nearer;
    - `cells`, `cells_gain`: for a table, the share of right cells in the row that stands for the victim. The gain is
      that minus the same share of the modal row. A cell is right with the right category, or with a number within 0.319
      standard deviations of its column in the population. The modal row has the most probable cell everywhere. Only
      where there is a population.

    For texts, rows of tokens are compared, from the first to the last token that is asked for. The readings are

    - `identified`, as above, by similarity;
    - `similarity`: the mean of `tokens` and `in_place`, 0..1, 1 for the same text alone; pairs are made by it;
    - `similarity_gain`, `beats_prior`: that minus the similarity of the baseline guess, and whether it is above 0;
    - `tokens`, `in_order`, `in_place`: shares of the tokens of the longer text that both texts have. They count as
      multisets, in the same order (the longest common subsequence), and in the same places;
    - `verbatim`: 1 where the text is the same.

    A victim is a row of its own: a window, or a secret in `position: alone`. Secrets that replace tokens of other rows
    are not rows, and are left out. With a vocabulary of V tokens a random guess has 1 / V of the places right, and
    priors are better. They are the modal tokens, place by place, of each canary family and of the population, and m
    random rows of each. There are also m rows of the population's tokens in proportion. The labels of `label_accuracy`
    are the next tokens.

    Controls are the out examples of the same clients, scored in the same way and labelled `coin` = `out`. Each takes
    the places of its replacement rows in the true batch, all else being equal. It comes with all rows that would be
    trained on under the same coin (copies, near copies). So the batch in which an example is sought does not depend on
    its coin. (In a batch of more than 256 rows all controls take their places at once, which is faster; other controls
    are then the only difference.) Only a coin decides which examples are victims and which are controls. So without
    leakage the difference between them has mean 0, whatever the attack, the pairing and the priors.

    Without replacement rows (`exclusion: remove`) each control takes the places of as many base rows of its owner,
    drawn once for each run. The difference is then only about 0. The batch of a control has one row less (or as many as
    the example would take), and so one image less is reconstructed. In batches of 8 digits that alone made 0.02 dB of
    `psnr` if noise stood for them, and 0.16 dB if other digits were.

    Each attack also has readings without a subject: `label_accuracy`, `label_accuracy.guess`, `distance` (matching
    distance reached) and `coverage` (m / n). `label_accuracy` is the share of the labels that are right as a multiset.
    The labels are inferred, unless `knows` has them. The share says little where `coverage` is small.
    `label_accuracy.guess` is the share with equally many labels of each class. For a text it is the share with equally
    many tokens, in the population's proportion.

    Priors are paired with the batch in the same way. A guesser with m images for a victim has an advantage over one
    with a single image. The priors are grey (0.5 everywhere), the mean of the population, and the class means of the
    population for the inferred labels. Further priors are m random images of the population, and the mean of each
    canary family. The best is taken for each victim by the truth, which favours the priors. No member is in the
    population or among the references.

    `summarise` gives the following for each attacked round and in the summary over all of them, by kind. It gives the
    mean of each metric over victims, the mean over controls (`coin=out`), and their difference. The difference is
    `<metric>.difference`, with the label `contrast` = `coins`; without leakage it is 0, see above. Intervals (95 %) are
    Student's over two kinds of clusters, owners and runs. One example attacked in several runs or rounds, and the
    examples of one client, are not independent. The examples of one run are not independent either. Shares have
    Wilson's interval with as many trials as there are clusters of the scarcer sort, and their difference at least
    Newcombe's. One cluster has no interval (NaN), except for shares: `identified`, `beats_prior`, `verbatim`.

    Fields

    - `attack`: how images or texts are reconstructed.
    - `rounds`: which observed rounds to attack; if left out, the first after round 0 and the last.
    - `victims`: clients attacked in each round and run, drawn from those of the cohort that hold an audit example, in
      or out. Sums and the aggregate are scored on the examples of the same clients, if these are part of them. A sum
      takes its clients in the same order (`sums.in_order`).
    - `runs`: how many runs are attacked, from run 0 on. With few of them the intervals are wide: two runs alone, whose
      spread has one degree of freedom, resolve next to nothing.
    - `first_step`: whether first steps are attacked as well as messages.
    - `gallery`: how many images a gallery has at most, except for the references of canaries.
    - `max_images`: largest number of images reconstructed at once; of a larger batch fewer are reconstructed, and each
      may be paired with several true ones.
    - `every`: probe only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to probe.

    Guarantees: the choice of attacked clients depends neither on the coins nor on the result of an attack; nothing is
    changed.

    Errors: `ComponentError` if the client algorithm is no `ScheduledClient`, since then an update is no gradient.

    >>> from fedmem.attacks.inverting_gradients import InvertingGradients
    >>> Leakage(attack=InvertingGradients()).levels
    ('local', 'global')

    Reference: Geiping et al. (2020); the comparison with priors follows Usynin, Knolle and Kaissis (2024).
    """

    measures: ClassVar[tuple[Measure, ...]] = ATTACKED
    row_labels: ClassVar[tuple[Label, ...]] = ATTACK_LABELS
    compares_held_out: ClassVar[bool] = True
    reads_gradients: ClassVar[bool] = True

    attack: ReconstructionAttack
    rounds: tuple[Annotated[int, Gt(0)], ...] = ()
    victims: Annotated[int, Gt(0)] = 2
    runs: Annotated[int, Gt(0)] = 4
    first_step: bool = True
    gallery: Annotated[int, Gt(0)] = 2000
    max_images: Annotated[int, Gt(0)] = 64
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Attack the chosen transitions of this round, if it is one of the declared ones."""
        first = transitions[0]
        if first.round not in self._attacked_rounds(context):
            return []
        readings: list[tuple[Transition, Reading]] = []
        for view in VIEWS[first.level]:
            if view == "first_step" and not self.first_step:
                continue
            cases = self._cases(view, transitions, context)
            if not cases:
                continue
            places = [case.transition for case in cases]
            # sums of several sizes are about no client
            purposes = [f"leakage {view}{len(t.clients) if view == 'sum' else ''}" for t in places]
            rngs = [
                context.stream(purpose, run=t.run, round_number=t.round, client=t.client)
                for purpose, t in zip(purposes, places, strict=True)
            ]
            reconstructions = reconstruct(self.attack, [case.target for case in cases], rngs)
            victims_by_view: dict[tuple[str, int], list[Victim]] = {}
            for case, result in zip(cases, reconstructions, strict=True):
                scored = score(case, check_reconstruction(case, result), context, self.gallery)
                about = [r for victim in scored for r in of_victim(victim)] + of_attack(case, result, context)
                readings += [(case.transition, reading) for reading in about]
                shown = victims_by_view.setdefault((case.name, case.transition.run), [])
                shown.extend(victim for victim in scored if not victim.control)
            for (name, run), victims in victims_by_view.items():
                if victims:
                    kept = ReconstructionSheet(
                        round=first.round,
                        level=first.level,
                        view=name,
                        run=run,
                        columns=sheet(victims, context.federation),
                    )
                    context.keep(kept.name, kept.arrays())
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means by kind and view and what victims have over controls, for each attacked round and over all."""
        return summed_up(measurements, self.measures)

    def _attacked_rounds(self, context: Context) -> tuple[int, ...]:
        """The rounds to attack."""
        if self.rounds:
            return self.rounds
        last = context.observed_rounds[-1]
        due = [r for r in context.observed_rounds if r > 0 and (not self.every or r % self.every == 0 or r == last)]
        return (due[0], due[-1]) if due else ()

    def _cases(self, view: str, transitions: Sequence[Transition], context: Context) -> list[Case]:
        """The cases of this view."""
        scope = Scope(runs=self.runs, victims=self.victims, max_images=self.max_images, knows=tuple(self.attack.knows))
        return scope.cases(view, transitions, context)
