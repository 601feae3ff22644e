"""The measures of the probes that attack updates or extract texts."""

from __future__ import annotations

import math

from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label
from fedmem.modalities.numbers import CAP

_HELD_OUT = "in − out"
_NOT_MEMORISATION = (
    "It measures leakage of an update, not memorisation by a model, and one attack that fails does not prove that none "
    "succeeds."
)
_PICKED = "picked with knowledge of the truth"
_NOT_PRIOR = (
    f"{_NOT_MEMORISATION} The best guess is picked with knowledge of the truth, so a value below 0 against it does not "
    "mean that nothing leaked."
)
_SHARE = {"unit": "share", "range": (0.0, 1.0), "section": "none"}
_YES_OR_NO = {"unit": "yes or no", "range": (0.0, 1.0), "section": "none"}


def _measure(name: str, title: str, means: str, **facts: object) -> Measure:
    """A measure that stands in the files alone."""
    return Measure(name=name, title=title, means=means, **{"section": "none", **facts})  # type: ignore[arg-type]


ATTACKED = (
    Measure(
        name="identified",
        title="identified",
        aside="share of examples that are nearer to a reconstruction than all of a gallery",
        means="The share of examples whose reconstruction from an update is nearer to them than to any image or text "
        "of a gallery.",
        is_not=_NOT_MEMORISATION,
        unit="yes or no",
        range=(0.0, 1.0),
        digits=2,
        section="reconstruction",
        saturated=(0.0, 0.99),
        order=10,
        difference=f"identified, {_HELD_OUT}",
    ),
    Measure(
        name="margin",
        title="dB of PSNR over the baseline guess",
        aside=f"{_PICKED}: below 0 does not mean that nothing leaked",
        means="How much nearer (PSNR in dB) a reconstructed image comes to an example than the best guess without the "
        "update. Its difference is this gain for examples that were trained on, minus that for examples of the same "
        "client that are out at random.",
        is_not=_NOT_PRIOR,
        unit="dB",
        range=(-CAP, CAP),
        digits=2,
        headline=True,
        section="reconstruction",
        terms=(
            ("PSNR", "peak signal-to-noise ratio: how near two images are, in decibels"),
            ("baseline guess", "a guess that does not look at the update, such as the mean image"),
            ("first step", "what a client's first batch alone changes, which no server sees"),
        ),
        order=10,
        difference=f"gain over the baseline guess, {_HELD_OUT}, dB",
    ),
    Measure(
        name="similarity_gain",
        title="similarity of texts over the baseline guess",
        aside=_PICKED,
        means="How much more similar, in tokens and their places, a reconstructed text is to an example than the best "
        "guess without the update. Its difference is this gain for examples that were trained on, minus that for "
        "examples of the same client that are out at random.",
        is_not=_NOT_PRIOR,
        unit="similarity",
        range=(-1.0, 1.0),
        headline=True,
        section="reconstruction",
        terms=(
            (
                "similarity",
                "of two texts: the mean of the shares of tokens and of places that are the same, 0 to 1",
            ),
        ),
        order=10,
        difference=f"gain in similarity over the baseline guess, {_HELD_OUT}",
    ),
    _measure("beats_prior", "better than the baseline guess", "Whether the gain is above 0.", **_YES_OR_NO),
    _measure("psnr", "PSNR", "10 log10(1 / mse), capped.", unit="dB", range=(0.0, CAP)),
    _measure("ssim", "structural similarity", "Structural similarity of two images.", range=(-1.0, 1.0)),
    _measure("mse", "mean squared error", "Mean squared error of inputs on [0, 1].", range=(0.0, 1.0),
           direction="neither"),
    _measure("cells", "cells that are right", "The share of cells of a table row that are right.", **_SHARE),
    _measure("cells_gain", "gain in cells", "Cells that are right, minus those of the modal row.", range=(-1.0, 1.0)),
    _measure("similarity", "similarity", "The mean of `tokens` and `in_place`.", range=(0.0, 1.0)),
    _measure("tokens", "tokens", "The share of tokens of the longer text that both have.", **_SHARE),
    _measure("in_order", "tokens in order", "The same for the longest common subsequence.", **_SHARE),
    _measure("in_place", "tokens in place", "The same for tokens in the same places.", **_SHARE),
    _measure("verbatim", "verbatim", "Whether the text is the same.", **_YES_OR_NO),
    _measure("label_accuracy", "labels that are right", "The share of labels that are right as a multiset.", **_SHARE),
    _measure("distance", "matching distance", "The matching distance that the attack reached.", range=(0.0, math.inf),
           direction="neither"),
    _measure("coverage", "coverage", "Reconstructed examples per true one.", **{**_SHARE, "direction": "neither"}),
)  # fmt: skip
"""The measures of the probe `leakage`."""

_NOT_FOUND = (
    "It is leakage of rows to a server that changes the model, not memorisation by a model that a federation trains."
)

DISHONEST = (
    _measure("exact", "exact", "Whether a quotient of gradients equals an example in every entry of its input.",
           is_not=_NOT_FOUND, headline=True, difference=f"exact, {_HELD_OUT}", null=0.0,
           **{**_YES_OR_NO, "section": "reconstruction"}),
    _measure("exact_rows", "rows that are exact", "The share of the rows in a message or sum that equal a quotient of "
           "gradients in every entry.", is_not=_NOT_FOUND, headline=True, null=0.0, **{**_SHARE, "section": ""}),
    _measure("isolated_rows", "rows alone in a cell", "The share of rows that alone move a unit, or the difference of "
           "two units, of the model that was sent.", is_not=_NOT_FOUND, **{**_SHARE, "section": ""}),
    _measure("isolated_rows_expected", "rows alone in a cell, expected", "The share of rows that is expected to be "
           "alone, from the population and the number of rows.", is_not=_NOT_FOUND,
           **{**_SHARE, "section": "", "direction": "neither"}),
)  # fmt: skip
"""The measures of a dishonest server beside those of `leakage`."""

_CONDITION = (
    "It is no leakage: it says whether the weights can be explained by rows, and only who knows the rows has it."
)

WEIGHTS = (
    _measure("kkt_residual", "residual of the rows", "Norm of what the best combination of margin gradients of the "
             "true rows leaves of the weights, divided by that of the weights.", is_not=_CONDITION,
             **{**_SHARE, "direction": "neither"}),
    _measure("loss_gradient", "gradient of the loss", "Norm of the gradient of the mean loss on the true rows.",
             is_not=_CONDITION, range=(0.0, math.inf), direction="neither"),
    _measure("least_margin", "least margin", "The least margin of the model over the true rows.", is_not=_CONDITION,
             direction="neither"),
    _measure("candidate_spread", "spread of candidates", "Mean root mean square difference of a reconstructed input "
             "from the nearest other one; 0 where candidates collapse.", range=(0.0, 1.0), direction="neither",
             is_not="It is no leakage: it says how different the candidates are from each other."),
)  # fmt: skip
"""The measures of reconstruction from weights beside those of `leakage`."""

_NO_REAL_MODEL = (
    "It is membership in the data of a client, read from its answer to a changed model. The models that the federation "
    "trains may say less."
)

ACTIVE = (
    _measure("active_auc", "AUC of an active server", "The probability that an example that is in scores higher than "
           "one that is out, by a client's answer to a changed model.", is_not=_NO_REAL_MODEL, null=0.5,
           headline=True, range=(0.0, 1.0), section=""),
    _measure("loss_fall", "fall of the loss", "Loss on an example of the model that a client was sent, minus that of "
           "the model that it returns.", is_not="It is the fall by one round, of members and others alike.",
           unit="nats", difference=f"fall of the loss, {_HELD_OUT}"),
    _measure("activation", "unit that fires", "Whether a unit that fires for inputs like one example alone was moved "
           "by a client.", is_not=_NO_REAL_MODEL, difference=f"unit that fires, {_HELD_OUT}", **_YES_OR_NO),
)  # fmt: skip
"""The measures of membership by a server that sends changed models."""

_EXTRACTED = "It is no memorisation where it happens as often by chance: compare it with secrets that were held out."

_GIVEN = {**_YES_OR_NO, "section": "extraction", "shows": "extracted"}

EXTRACTED = (
    _measure("greedy", "written verbatim", "Whether the most probable tokens give the secret.", is_not=_EXTRACTED,
           headline=True, **_GIVEN),
    _measure("greedy_within_distance", "written nearly", "The same up to `distance` edits.", is_not=_EXTRACTED,
           **_GIVEN),
    _measure("beam", "in a beam", "Whether a beam search gives the secret.", is_not=_EXTRACTED, **_GIVEN),
    _measure("beam_within_distance", "nearly in a beam", "The same up to `distance` edits.", is_not=_EXTRACTED,
           **_GIVEN),
    _measure("discoverable", "discoverable", "Whether `draws_needed` is at most `draws`.", is_not=_EXTRACTED,
           headline=True, **_GIVEN),
    _measure("best_first", "found by a search", "Whether the secret is among the most probable members of its "
    "template.",
           is_not=_EXTRACTED, headline=True, **_GIVEN),
    _measure("draws_needed", "draws needed", "The fewest draws of which one is the secret with probability p.",
           range=(1.0, math.inf), direction="higher is better"),
)  # fmt: skip
"""The measures of the probe `extraction`."""

CONTINUED = (
    _measure("verbatim_continuation", "continued verbatim", "Whether the greedy continuation of a prefix is the text.",
           is_not=_EXTRACTED, headline=True, **_GIVEN),
    _measure("near_verbatim", "continued nearly verbatim", "Whether 1 minus the edit distance is at least `near`.",
           is_not=_EXTRACTED, headline=True, **_GIVEN),
    _measure("bleu_verbatim", "continued with a BLEU above 0.75", "Whether BLEU of the continuation is above 0.75.",
           is_not=_EXTRACTED, **_GIVEN),
    _measure("common_prefix", "common prefix", "Tokens of the continuation before the first that is wrong.",
           is_not=_EXTRACTED, unit="tokens", range=(0.0, math.inf), digits=1),
    _measure("edit_distance", "edit distance", "Edits that make the continuation the text, divided by its length.",
           is_not=_EXTRACTED, range=(0.0, 1.0), direction="higher is better"),
)  # fmt: skip
"""The measures of the probe `verbatim`."""

_NOT_FREQUENCY = "It also shows how likely such values are: compare it with texts that were held out."

FILLED_IN = (
    _measure("masked_first", "filled in first", "Whether the true value of a masked field is the most probable of all.",
           is_not=_EXTRACTED, headline=True, **_GIVEN),
    _measure("masked_beats_frequencies", "filled in better than by frequencies", "Whether the true value ranks higher "
    "than by the frequencies of its tokens.", is_not=_EXTRACTED, **_YES_OR_NO),
    _measure("masked_rank", "rank of the masked value", "The rank of the true value among the candidates, from 1.",
           is_not=_NOT_FREQUENCY, range=(1.0, math.inf), direction="higher is better", digits=1),
    _measure("masked_exposure", "exposure of the masked value", "log2 of the candidates minus log2 of the rank.",
           is_not=_NOT_FREQUENCY, unit="bits", range=(0.0, math.inf), digits=2),
    _measure("masked_gain", "exposure over frequencies", "This exposure minus that by the frequencies of tokens.",
           is_not=_NOT_FREQUENCY, unit="bits", digits=2),
)  # fmt: skip
"""The measures of the probe `masked_field`."""

INFORMATION = (
    _measure("alignment", "alignment", "The cosine of the update of a layer and the gradient of the example.",
           is_not="It is a proxy: nothing is reconstructed, so it is no leakage.", range=(-1.0, 1.0)),
    _measure("sensitivity", "sensitivity", "How much the update of a layer moves with the input, relative to its "
    "length.",
           is_not="It is a proxy: nothing is reconstructed, so it is no leakage."),
    _measure("usable_information", "usable information", "Bits that the alignment gives about inclusion.",
           is_not="It is a proxy: nothing is reconstructed, so it is no leakage.", unit="bits", range=(-math.inf, 1.0)),
)  # fmt: skip
"""The measures of the probe `information`."""

ATTACK_LABELS = (
    Label(
        "view",
        "text",
        "which update is attacked",
        (
            ("message", "a client's real message"),
            ("aggregate", "the aggregate"),
            ("first_step", "a client's first step alone, which no server sees"),
            ("model", "the weights after a round alone"),
        ),
    ),
    Label("knows", "text", "what the adversary knows besides the model before and after"),
    Label("gallery", "whole", "the size of the gallery that an example is identified in"),
    Label("peers", "whole", "how many of the gallery are exchangeable with the example"),
)
"""The further labels of the probes that read an update as a gradient."""
