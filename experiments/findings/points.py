"""The key points of the survey as claims, and the rows that say whether they hold.

Claims and rows were chosen after the studies were finished, among quantities that these had fixed before they ran.
"""

from __future__ import annotations

from collections.abc import Iterable

from fedmem.contracts.measurement import Level
from fedmem.studies.findings import Answer, Finding

LEVELS: tuple[Level, Level] = ("local", "global")
DIGITS_AND_FASHION = {"digits": "digits", "fashion_mnist": "Fashion-MNIST"}

Columns = dict[str, str | int | float]


def _everywhere(
    study: str,
    row: Columns,
    *,
    table: str = "gates",
    data: dict[str, str] | None = None,
    levels: Iterable[Level] = LEVELS,
    sign: float = 1.0,
    of: str = "mean",
) -> list[Answer]:
    """One answer for each data set, which the table has in the column `data`, and for each level."""
    return [
        Answer(
            study=study,
            table=table,
            data=words,
            level=level,
            row={**row, "data": name, "level": level},
            sign=sign,
            of=of,
        )
        for name, words in (data or DIGITS_AND_FASHION).items()
        for level in levels
    ]


def _both(study: str, data: str, row: Columns, *, table: str = "gates", sign: float = 1.0) -> list[Answer]:
    """One answer for each level of a table that has one data set."""
    return [
        Answer(study=study, table=table, data=data, level=level, row={**row, "level": level}, sign=sign)
        for level in LEVELS
    ]


def _at(study: str, data: str, level: Level, row: Columns, *, table: str = "gates", sign: float = 1.0) -> Answer:
    """One answer, in a table with a column `level`."""
    return Answer(study=study, table=table, data=data, level=level, row={**row, "level": level}, sign=sign)


def _kept(federation: str, data: str, level: Level, claim: str) -> Answer:
    """An answer of the study on unlearning, whose level is in the column `place`."""
    row: Columns = {"federation": federation, "claim": claim, "place": level}
    return Answer(study="unlearning", data=data, level=level, row=row)


_LESS_TYPICAL: Columns = {"question": "memorisation", "measure": "less typical"}
_MATCHED: Columns = {"metric": "memorisation", "with": "probability", "kind": "random_pattern", "against": "stopped"}
_MATCHED_DATA = {
    "mnist5k, authors": "digits of authors",
    "Fashion, alpha 0.1": "Fashion-MNIST, unlike clients",
    "Fashion, alpha 1": "Fashion-MNIST, like clients",
}

FINDINGS = (
    Finding(
        point="3",
        title="self-influence",
        claim="training on an ordinary row raises the probability of its label",
        answers=_everywhere(
            "long_tail", {"question": "memorisation", "what": "natural", "measure": "mean"}, table="results"
        ),
        not_measured={},
    ),
    Finding(
        point="3.1",
        title="rare rows",
        claim="rows of a rare subgroup are memorised more than ordinary ones",
        answers=_everywhere("long_tail", {**_LESS_TYPICAL, "what": "rare_subgroup"}, table="results"),
        not_measured={},
    ),
    Finding(
        point="3.1",
        title="cost of removal",
        claim="without the 30 % that are memorised most, accuracy is lower than without 30 % at random",
        answers=[
            answer
            for level in LEVELS
            for answer in _everywhere(
                "long_tail",
                {"question": "removal", "what": f"30% {level}", "measure": "less random"},
                table="results",
                levels=[level],
                sign=-1.0,
            )
        ],
        not_measured={},
    ),
    Finding(
        point="3.2a",
        title="before over-fitting",
        claim="wrong labels are memorised in the round with the lowest test loss",
        answers=_everywhere("overfitting", {"claim": "wrong labels are memorised where the test loss is lowest"}),
        not_measured={},
    ),
    Finding(
        point="3.2b",
        title="random labels",
        claim="labels that are random at two of eight clients are memorised",
        answers=_everywhere("random_labels", {"claim": "random labels at two clients are memorised"}),
        not_measured={},
    ),
    Finding(
        point="3.2b",
        title="capacity",
        claim="a network of 256 units memorises random labels more than one of 8",
        answers=_everywhere("random_labels", {"claim": "random labels at two clients: 256 units memorise more than 8"}),
        not_measured={},
    ),
    Finding(
        point="4.1",
        title="influence functions",
        claim="the influence function predicts what rows do to other runs",
        answers=[
            answer
            for model, words in (("logistic", "digits, logistic regression"), ("mlp", "digits, MLP"))
            for answer in _both(
                "influence",
                words,
                {"claim": "the influence function predicts test margins of other runs", "model": model},
            )
        ],
        not_measured={},
    ),
    Finding(
        point="4.2",
        title="value below 0",
        claim="wrong labels have a Shapley value below 0",
        answers=_both("value", "digits", {"claim": "wrong labels have a Shapley value below 0"}),
        not_measured={},
    ),
    Finding(
        point="4.2",
        title="value, memorisation",
        claim="among ordinary rows, the valuable ones are memorised more",
        answers=_both("value", "digits", {"claim": "among ordinary examples, the valuable ones are memorised more"}),
        not_measured={},
    ),
    Finding(
        point="5.1",
        title="gradients",
        claim="the gradient norm of models without a row ranks rows as memorisation does",
        answers=_everywhere(
            "proxies",
            {"question": "agreement", "proxy": "grad_norm", "statistic": "out", "round": 10},
            table="results",
        ),
        not_measured={},
    ),
    Finding(
        point="5.2",
        title="information",
        claim="rows of low pointwise V-information are memorised more",
        answers=_everywhere(
            "proxies",
            {"question": "agreement", "proxy": "v_information prior=owner", "statistic": "out"},
            table="results",
            sign=-1.0,
        ),
        not_measured={},
    ),
    Finding(
        point="5.3",
        title="difficulty",
        claim="the loss without a row ranks rows as memorisation does better than the loss with it",
        answers=_everywhere(
            "proxies", {"claim": "difficulty (loss without the example) ranks better than the loss with it"}
        ),
        not_measured={},
    ),
    Finding(
        point="6",
        title="spread over blocks",
        claim="no single block holds half of the memory of random patterns or secrets",
        answers=[
            _at("where", "digits", "local", {"claim": "no single block takes half of random patterns"}),
            _at("where", "texts", "local", {"claim": "no single block takes half of secrets"}),
            _at("where", "digits", "global", {"claim": "no single block brings half of random patterns back"}),
            _at("where", "texts", "global", {"claim": "no single block brings half of secrets back"}),
        ],
        not_measured={},
    ),
    Finding(
        point="6",
        title="lost by averaging",
        claim="what is memorised is lost by averaging at once, in part",
        answers=[
            _at("forgetting", data, "global", {"claim": f"averaging removes a part of the memory of {kind} at once"})
            for data, kind in (("digits", "four_times"), ("texts", "secret_often"))
        ],
        not_measured={"local": "it is the loss from the owning client to the aggregate"},
    ),
    Finding(
        point="7.1",
        title="canaries",
        claim="images of noise are memorised more than ordinary rows",
        answers=_everywhere("long_tail", {**_LESS_TYPICAL, "what": "random_pattern"}, table="results"),
        not_measured={},
    ),
    Finding(
        point="7.2",
        title="adversarial rows",
        claim="adversarial examples are memorised more than ordinary rows",
        answers=_everywhere("adversarial", {"claim": "adversarial examples: memorised more than ordinary rows"}),
        not_measured={},
    ),
    Finding(
        point="8.1",
        title="membership",
        claim="vulnerability to LiRA ranks ordinary rows as memorisation does",
        answers=_everywhere(
            "vulnerability",
            {"claim": "vulnerability to LiRA ranks examples as memorisation does", "kind": "typical"},
        ),
        not_measured={},
    ),
    Finding(
        point="8.1",
        title="attributes",
        claim="a model gives sensitive values of rows away that it was trained on, beyond those that it was not",
        answers=_both("attributes", "Adult", {"claim": "marital status: CSMIA of random rows has a gain"}),
        not_measured={},
    ),
    Finding(
        point="8.1",
        title="reconstruction",
        claim="a server that changes the model reads rows of a client",
        answers=_everywhere("dishonest_server", {"claim": "imprint reads rows: in − out"}),
        not_measured={},
    ),
    Finding(
        point="8.2",
        title="log density",
        claim="training on 16 copies of an image raises its log density",
        answers=_both("generative", "digits", {"claim": "training on an image of 16 copies raises its log density"}),
        not_measured={},
    ),
    Finding(
        point="8.2",
        title="extraction",
        claim="images of 16 copies are extracted more often than by chance",
        answers=_both("generative", "digits", {"claim": "images of 16 copies are extracted more often than by chance"}),
        not_measured={},
    ),
    Finding(
        point="9.1",
        title="fading",
        claim="a memory fades while its client is away",
        answers=[
            _at("forgetting", data, "global", {"claim": f"{kind} fades while its client is away"})
            for data, kind in (("digits", "four_times"), ("texts", "secret_often"))
        ],
        not_measured={"local": "a client that is away has no new model"},
    ),
    Finding(
        point="9.2",
        title="unlearning",
        claim="rounds without the forgotten rows leave a part of their memory",
        answers=[
            answer
            for level in LEVELS
            for answer in (
                _kept("examples", "digits", level, "something is left: fine_tune"),
                _kept("texts", "texts", level, "probability is left: fine_tune"),
            )
        ],
        not_measured={},
    ),
    Finding(
        point="9.3",
        title="privacy",
        claim="privacy of clients with ε = 8 lowers the exposure gain of canaries",
        answers=_everywhere(
            "privacy_frontier",
            {"place": "central", "target": 8.0, "metric": "exposure_gain", "kind": "random_pattern"},
            table="results",
            of="difference",
            sign=-1.0,
        ),
        not_measured={},
    ),
    Finding(
        point="9.3",
        title="known rows",
        claim="ε = 10 hides a row from an adversary that knows all others better than ε = 1000 does",
        answers=_both("shadow_federations", "digits", {"claim": "epsilon 10 hides more than 1000"}),
        not_measured={},
    ),
    Finding(
        point="A",
        title="median",
        claim="the median lowers memorisation of canaries at equal accuracy",
        answers=_everywhere(
            "aggregation_and_sampling",
            {**_MATCHED, "strategy": "{kind: fedmedian}"},
            table="matched",
            data=_MATCHED_DATA,
            of="difference",
            sign=-1.0,
        ),
        not_measured={},
    ),
    Finding(
        point="A",
        title="median, tuned",
        claim="the median lowers memorisation at equal accuracy, where it and FedAvg are tuned",
        answers=[
            Answer(
                study="matched_utility",
                table="gates",
                data=words,
                level=level,
                row={"what": "memorisation", "share": 0.9, "task": name, "arm": "fedmedian", "level": level},
            )
            for name, words in DIGITS_AND_FASHION.items()
            for level in LEVELS
        ],
        not_measured={},
    ),
)
