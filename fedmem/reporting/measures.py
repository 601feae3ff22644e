"""What each measure is called, its range, its unit and its meaning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedmem.estimation.saturation import MARK
from fedmem.reporting.cells import rate

RANGES = {
    "memorisation": (-1.0, 1.0),
    "auc": (0.0, 1.0),
    "tpr": (0.0, 1.0),
    "test_accuracy": (0.0, 1.0),
    "train_accuracy": (0.0, 1.0),
    "generalisation_gap": (-1.0, 1.0),
    "client_accuracy_gap": (-1.0, 1.0),
}
"""Between which values a measure lies; no interval is told beyond."""


POINTS = ("memorisation", "auc", "tpr", "test_accuracy", "train_accuracy", "generalisation_gap", "client_accuracy_gap")
"""Measures between −1 and 1 whose differences are told in percentage points."""


UTILITY = "test_accuracy"
"""What models are good for, on the other side of every trade."""


_TITLES = {UTILITY: "test accuracy", "generalisation_gap": "generalisation gap"}


_PLACES = {"owner": "local", "others": "local, others"}


GAINS = ("margin", "likeness_gain")
"""What a reconstruction has over the best prior: of pictures and tables, and of texts."""


VIEWS = {
    "message": "a client's real message",
    "aggregate": "the aggregate",
    "first_step": "a client's first step alone, which no server sees",
}
"""The views of an update that a reconstruction is made from, in the order of the table."""


TERMS: Mapping[str, str] = {
    "exposure": "bits that the rank of a planted pattern among fresh ones gives away",
    "memorisation": "how much likelier the answer is right if the example was trained on",
    "LiRA": "likelihood-ratio attack: tells members from others by the other runs",
    "loss threshold": "attack that calls an example with a low loss a member",
    "AUC": "probability that a member scores above a non-member; 0.5 is guessing",
    "TPR": "true positive rate: share of members that are found",
    "FPR": "false positive rate: share of non-members that are taken for members",
    "≈": "the interval spans more than half of 0 to 1: read it, not the number",
    "PSNR": "peak signal-to-noise ratio: how near two images are, in decibels",
    "likeness": "of two texts: the mean of the shares of tokens and of places that are the same, 0 to 1",
    "prior": "a guess that does not look at the update, such as the mean image",
    "first step": "what a client's first batch alone changes, which no server sees",
    "global / local": "retention, the share of the local effect that is kept",
    "first higher": "the interval of first − second lies above zero",
    MARK: "saturated: within half a bit of the ceiling of exposure, log2(references + 1), or of another measure within "
    ".01 (AUC, rates, accuracy) or .05 (memorisation) of its end; differences there are hidden",
    "both saturated": "both values are at the end of what the measure shows, so that a difference could not be seen",
    "capped": "one of both values is saturated, so that the true difference may be larger",
    " p ": "of no memorisation: twice the share of re-dealt coins that give as much, or as little; exact",
    "released": "the last aggregate, read on all examples",
    "unresolved": "the interval contains zero, or there is none, so the data do not tell how large it is",
    "no interval": "fewer than eight runs that did not diverge, fewer than eight examples, all values alike, or a rate "
    "of 0 or 1",
    "generalisation gap": "accuracy on training data less accuracy on test data; in nats, loss on test less training "
    "data",
    "extrapolated": "read from a law fitted to the losses of the references, so that it can exceed their number",
    "gained": "test examples that are answered rightly because one example was trained on, less those lost",
    "helped": "test examples that gain by one example, each by its share of runs, summed",
    "harmed": "the same for those that lose",
    "by noise": "what shuffled coins give, and p, the share of shuffles that are as far out",
    "significant pairs": "an audit and a test example whose influence is told from chance, few of them wrongly",
    "client influence": "what the aggregate gains where a client takes part, less where it is left out",
    "own examples": "answers to the audit examples that belong to the client, right or wrong",
    "epsilon": "bound on how far one unit changes the odds of any outcome: by e^epsilon, but for delta",
    "add_remove": "neighbours: with the unit and without it",
    "zero_out": "neighbours: the unit contributes nothing, and its place stays empty",
    "client, replace": "neighbours: another client's data in the place of the client's",
    "epsilon at least": "proven by an audit; true with the confidence of the audit, 95 % if it says nothing else",
    "epsilon about": "an estimate, no bound; in brackets where mean and spread are moved by two standard errors",
    "ceiling": "what the audit could have proven at most, had every guess been right",
    "permitted": "what is promised to the neighbours that the audit compared; above it something is wrong",
    "at most": "what the promised epsilon leaves possible, whatever the attack",
    "client gap": "accuracy on a client's own base rows less accuracy on test data",
}
"""What the words of the table mean, one line each."""


_RATE = "fpr="
"""How the word of a setting begins that says at which false positive rate a true positive rate is."""


_ATTACKS = {"lira": "LiRA", "loss_threshold": "loss threshold", "rmia": "RMIA"}


_AT_CHANCE = 0.005
"""An AUC without memorisation that is so near one half is called one half."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How one measure is found among the rows (`parts` are the words of its setting, the place apart) and named."""

    metric: str
    title: str
    null: float
    unit: str = ""
    digits: int = 3
    parts: frozenset[str] = frozenset()
    headline: bool = True
    nulls: tuple[float, ...] = ()
    """Those of all kinds, sorted, where they differ and `null` is NaN."""

    @property
    def is_rate(self) -> bool:
        """Whether it lies between 0 and 1."""
        return self.metric in ("auc", "tpr")

    @property
    def slug(self) -> str:
        """A name for files."""
        words = "_".join([*sorted(self.parts), self.metric])
        return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in words)

    @property
    def heading(self) -> str:
        """The title with its unit and the value that no memorisation gives."""
        if self.metric == "tpr":
            null = "that FPR" if math.isnan(self.null) else rate(self.null)
        else:
            ends = (self.nulls[0], self.nulls[-1]) if self.nulls else (self.null,)
            null = " to ".join(dict.fromkeys(f"{end:.3g}" for end in ends))
        return f"{self.title}{f', {self.unit}' if self.unit else ''} (without memorisation: {null})"


MEANING: Mapping[str, tuple[str, str]] = {
    "exposure": (
        "How many bits of its rank an inserted canary gives away: log2 of how far up the model ranks it among fresh "
        "canaries that could have been inserted instead. One bit more means that half as many are ranked above it.",
        "It is not self-influence: it shows the worst case for planted patterns, cannot exceed log2 of the number of "
        "references plus one, and is above zero without any memorisation. Within half a bit of that ceiling it is "
        "marked as saturated, since differences there are hidden.",
    ),
    "memorisation": (
        "How much more often the model is right about an example when the example itself was trained on, over the runs "
        "whose coins put it in and the runs whose coins left it out.",
        "It is not over-fitting and not difficulty. An example that the model gets right either way has memorisation "
        "zero, although it was learned.",
    ),
    "AUC": (
        "The probability that the attack scores a random member above a random non-member of the same kind; 0.5 is "
        "guessing. The attack knows the other runs of this bank.",
        "It measures what an attacker learns about presence, not how much of the example is stored, and an average can "
        "hide a few examples that are fully exposed.",
    ),
    "TPR": (
        "The share of members that the attack finds while it accuses at most the stated share of non-members.",
        "It says nothing below that rate: ten false alarms are the fewest that the data can count.",
    ),
    "reconstruction": (
        "How much nearer (PSNR in dB) an image rebuilt from an update comes to an example than the best guess that "
        "does not look at the update, of a text how much more alike in tokens and their places; and this gain for "
        "examples that were trained on, less the same for examples of the same client that a coin held back. The first "
        "step is a stronger adversary than any server.",
        "It measures leakage of an update, not memorisation by a model, and one attack that fails does not prove that "
        "none succeeds. The best guess is picked with knowledge of the truth, so a value below 0 against it does "
        "not mean that nothing leaked.",
    ),
    "extrapolated exposure": (
        "The same in bits, from a skew-normal law that is fitted to the losses of the references of each model, where "
        "the fit is good: it does not end at the number of references.",
        "It is an extrapolation: beyond the references nothing checks the law. Models whose fit is poor are left out.",
    ),
    "cross-influence": (
        "How many test examples the models answer rightly because one audit example was trained on, less those that "
        "they answer wrongly because of it. Help and harm are the sums of both sides over all test examples.",
        "It is not self-influence. Noise alone makes help and harm larger than 0, so read them against what noise "
        "gives; a pair of examples is called only where chance, over all pairs, is unlikely.",
    ),
    "client influence": (
        "How much better the aggregate of the last observed round is in runs that have a client than in runs that a "
        "coin leaves it out of, with the other clients there half of the time on both sides.",
        "It is not what a full federation would lose without the client.",
    ),
    "client gap": (
        "Accuracy (or loss) on the base rows of a client, compared with the test set: over-fitting client by client.",
        "It holds the skew of labels as well, which is there before anybody trains.",
    ),
    "retention": (
        "The effect at the aggregate as a share of the effect at the holder, both summed over all examples of a kind "
        "above the value without memorisation: 1 means that aggregation keeps everything, 0 nothing.",
        "It is not an average of ratios of single examples, and has no value where the local effect is not resolved.",
    ),
    "utility": (
        "Test accuracy, and how much higher accuracy is on training examples than on test examples.",
        "A gap is over-fitting on average, which is neither needed nor enough for memorisation. At a client it also "
        "holds the skew of its labels.",
    ),
}
"""What each measure means, and what it does not mean."""
