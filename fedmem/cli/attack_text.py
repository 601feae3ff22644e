"""Output of `fedmem attack`: knowledge, assumptions, match of the update, and reconstructions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedmem.apps.attack import AttackResult, Known
from fedmem.apps.match_control import Match
from fedmem.contracts.attack import ReconstructionAttack
from fedmem.contracts.events import count
from fedmem.estimation.statistics import clopper_pearson
from fedmem.scenario import catalogue

if TYPE_CHECKING:
    from fedmem.cli.attack import AttackOptions

GRANTED = {
    "lr": "the learning rate",
    "steps": "the number of local steps",
    "count": "the number of examples",
    "labels": "the labels",
    "algorithm": "how the client trains",
    "batches": "the order of the examples",
    "population": "reference data",
}
"""The meaning of the words of `knows`."""

CANNOT_WORK = (
    "It worked on none of the simulated updates of a client that works as assumed. So this attack cannot work on "
    "updates of this kind. Raise attack.steps, use a stronger attack, or give a --gallery of inputs like the client's"
)
"""The text in place of reasons at the client, where the attack fails on its own simulated updates."""

OPTIONS = {"labels": "--labels LABEL,LABEL,...", "batches": "--in-order"}
"""The options that grant what an attack may know."""

REASONS = (
    "The client used another optimiser than plain SGD (Adam, momentum, weight decay), or another loss than the mean "
    "cross-entropy. It used other --steps, --batch-size, --images, --mode, --mean or --std. It used a defence such as "
    "clipping, noise or compression. The files are not before and after one training, or are swapped"
)


def granted_text(knows: str) -> str:
    """The knowledge of the adversary in plain words.

    >>> granted_text("lr+steps+count")
    'the model before, the update, the learning rate, the number of local steps, the number of examples'
    """
    return ", ".join(["the model before", "the update", *(GRANTED.get(word, word) for word in knows.split("+"))])


def assumed_text(known: Known, options: AttackOptions) -> str:
    """The values that hold for the client's work, and which of them nobody gave."""

    def value(name: str, shown: object, given: object) -> str:
        return f"{name} {shown}" + ("" if given is not None else " (default, not given)")

    steps = value("steps", known.steps, options.steps or options.epochs)
    if options.epochs is not None:
        steps += f" (from {count(options.epochs, 'epoch')})"
    rows = known.batch_size or -(-known.num_images // known.clients)
    parts = [
        "plain SGD on the mean cross-entropy",
        f"lr {known.lr:g}",
        f"images {known.num_images}",
        "a gradient, so that steps and batch size do not matter" if options.gradient else steps,
        "" if options.gradient else value("batch size", rows, known.batch_size),
        value("clients", known.clients, options.clients),
        value("mode", known.mode, options.mode),
        "" if known.mean else "inputs not normalised (default, not given)",
    ]
    return ", ".join(filter(None, parts))


def match_lines(match: Match, notes: Sequence[str] = (), leaked: str = "") -> list[str]:
    """The quality of the match in words, a warning where there is none, and what the files contradict.

    `leaked` says which true inputs leaked all the same, such as `8 of 8`.
    """
    lines = [f"note: {note}" for note in notes]
    if math.isnan(match.distance):
        return [*lines, "match: none, since nothing was matched"]
    reached = f"matching distance {match.distance:.2g} (0 is a perfect match, and larger is worse)"
    if match.verdict == "not checked":
        return [*lines, f"match: not checked; {reached}. With --controls 3, simulated updates show which is good"]
    word = "bad" if match.verdict == "swapped" else match.verdict
    lines.append(f"match: {word}; {reached}. {_controls_text(match)}{_reason(match)}")
    if word != "bad":
        return lines
    swapped = (
        f"Reversed, it is matched better (distance {match.reverse:.2g}): before and after are probably swapped. Other "
        "usual reasons"
        if match.verdict == "swapped"
        else "The usual reasons"
    )
    warning = (
        f"WARNING: not matched, yet {leaked} true inputs leaked: not safe. A better match may find more"
        if leaked
        else "WARNING: the update was not matched, so this attack says nothing about safety"
    )
    if match.verdict == "bad" and match.worked and not any(match.worked):
        return [*lines, f"{warning}. {CANNOT_WORK}"]
    return [*lines, f"{warning}. {swapped}: {REASONS}"]


def _controls_text(match: Match) -> str:
    """The distances of the simulated updates, and on how many of them the attack worked."""
    right = len(match.as_stated) if not match.worked else sum(match.worked)
    return (
        f"On simulated updates of a client that works as assumed, the same attack reaches {_span(match.as_stated)}. It "
        f"works on {right} of {len(match.as_stated)} of them. On those of clients that work otherwise (momentum, Adam, "
        f"other steps, reversed), it reaches {_span(match.misstated)}, and works on {sum(match.worked_otherwise)} of "
        f"{len(match.misstated)}"
    )


def _reason(match: Match) -> str:
    """Why a match is good or undecided, as a sentence."""
    if match.verdict == "good":
        return f". {_borders(match)}"
    if match.verdict != "undecided":
        return ""
    if match.is_weak:
        return (
            ". It fails where all is as assumed, so it is too weak to show anything. Raise attack.steps, use a "
            "stronger attack, or give a --gallery of inputs like the client's"
        )
    if math.isnan(match.limit):
        return (
            ". Distances with which it works and fails are alike, so the distance does not show whether the update "
            "was matched. Raise attack.steps, or use a stronger attack"
        )
    if match.distance <= match.limit:
        return (
            ". The distance would be good, but at most half of the true inputs came back nearer than the best guess "
            "without the update. The client probably works otherwise"
        )
    return (
        f". {_borders(match)}. The distance lies above the first and below the second, so the client may work "
        "otherwise than assumed"
    )


def _borders(match: Match) -> str:
    """The distances up to which the attack works on simulated updates, and from which on it fails."""
    if math.isinf(match.smallest_failing):
        return f"Up to {match.limit:.2g} it works, and it never fails"
    return f"Up to {match.limit:.2g} it works, and from {match.smallest_failing:.2g} on it fails"


def _span(values: Sequence[float]) -> str:
    return f"{min(values):.2g} to {max(values):.2g}"


def leaked_text(done: AttackResult) -> str:
    """How many true inputs were identified, such as `8 of 8`; empty if no more than by chance (p above 0.05)."""
    from scipy.stats import binom

    identified = [score.identified for score in done.scores if score.identified == score.identified]
    count = int(sum(identified))
    if not count or binom.sf(count - 1, len(identified), 1 / (done.gallery_size + 1)) > 0.05:
        return ""
    return f"{count} of {len(identified)}"


def found_text(done: AttackResult) -> str:
    """The number and labels of reconstructions, or the reason why inputs and labels are not recovered."""
    reconstruction = done.found
    if reconstruction.note:
        return f"inputs and labels were not recovered: {reconstruction.note}"
    labels = ", ".join(map(str, reconstruction.labels.tolist()))
    return f"{len(reconstruction.inputs)} reconstructed, labels {labels}"


def score_lines(done: AttackResult) -> list[str]:
    """How near the true inputs came back; undefined where nothing is known of the match and nothing was identified."""
    if not done.scores:
        return ["not scored: give --truth, and --gallery, to know what this is worth"]
    identified = [score.identified for score in done.scores if score.identified == score.identified]
    successes, trials = int(sum(identified)), len(identified)
    better = sum(score.margin > 0 for score in done.scores)
    lines = []
    if identified and not successes and done.match.verdict in ("bad", "swapped", "undecided"):
        return [
            f"identified: undefined. None of {trials} reconstructions is near a true input, but the update was not "
            "matched; this is no evidence that nothing leaks"
        ]
    if identified:
        low, high = clopper_pearson(successes, trials)
        lines.append(
            f"identified {successes} of {trials} among {done.gallery_size} others "
            f"(by chance about {trials / (done.gallery_size + 1):.1g} of {trials})"
        )
        lines.append(
            f"share identified {successes / trials:.2f} [{low:.2f}, {high:.2f}] (exact binomial 95 % interval, as "
            "if the examples of an update were independent)"
        )
    lines.append(f"nearer than the baseline guess: {better} of {len(done.scores)}")
    margins, levels = ([getattr(score, name) for score in done.scores] for name in ("margin", "psnr"))
    if not identified:
        lines.append("identified: not known without --gallery, inputs like the true ones that were not trained on")
    lines.append(f"gain over it {np.median(margins):+.1f} dB, PSNR {np.median(levels):.1f} dB (medians)")
    if successes < trials:
        lines.append("This is what one attack found. A stronger one may find more, so this is a lower bound on leakage")
    return lines


def stronger_lines(attack: ReconstructionAttack, known: Known, *, gradient: bool) -> list[str]:
    """The attacks that train as the client did, where it took several steps and this attack does not do so."""
    if gradient or known.steps == 1 or known.clients > 1 or "algorithm" in attack.knows:
        return []
    lines = []
    for kind in catalogue.kinds_that_satisfy("attack", (ReconstructionAttack,)):
        granted = catalogue.build("attack", {"kind": kind}).knows
        if "algorithm" in granted:
            more = " ".join(OPTIONS[name] for name in granted if name in OPTIONS)
            lines.append(
                f"stronger: with {known.steps} local steps, add --attack {kind} {more}".rstrip()
                + ". It trains as the client did, and usually identifies more"
            )
    return lines


def report_text(
    done: AttackResult, known: Known, options: AttackOptions, attack: ReconstructionAttack, out: Path
) -> str:
    """The outcome of an attack, how to read it, and the paths of its page and files."""
    lines = outcome_lines(done, known, options, attack)
    return "\n".join([*lines, f"Report: {out / 'report.html'}", f"Files: {out}"])


def outcome_lines(done: AttackResult, known: Known, options: AttackOptions, attack: ReconstructionAttack) -> list[str]:
    """Lines with the adversary's knowledge, assumptions, results, and how to read them."""
    return [
        f"granted to the adversary: {granted_text(done.knows)}",
        f"assumed of the client: {assumed_text(known, options)}",
        found_text(done),
        *match_lines(done.match, done.notes, leaked_text(done)),
        *score_lines(done),
        *stronger_lines(attack, known, gradient=options.gradient),
    ]
