"""Checks of the law of random inclusion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedmem.contracts.coin_law_support import explain_law, not_reading_law
from fedmem.contracts.estimator import Estimator
from fedmem.contracts.injection import Injection, has_coins
from fedmem.contracts.probe import Probe
from fedmem.errors import Problem
from fedmem.scenario.coins import Coins

if TYPE_CHECKING:
    from fedmem.scenario.scenario import LeaveOut

_FIELDS = {"balanced": (), "rate": ("rate",), "owen": (), "beta": ("alpha", "beta"), "one_of": ()}
"""The fields of each law."""


def _coin_fields(coins: Coins) -> Iterator[Problem]:
    """Each law has its own fields, which are all needed."""
    for name in ("rate", "alpha", "beta"):
        is_given = getattr(coins, name) is not None
        if is_given and name not in _FIELDS[coins.law]:
            owner = next(law for law, names in _FIELDS.items() if name in names)
            yield Problem(
                path=f"coins.{name}",
                message=f"belongs to `law: {owner}`, not to {coins.law}; leave it out, or write law: {owner}",
            )
        elif not is_given and name in _FIELDS[coins.law]:
            yield Problem(
                path="coins", message=f"`law: {coins.law}` needs {' and '.join(_FIELDS[coins.law])}; add {name}"
            )


def _enough_coins(coins: Coins, runs: int, twins: int) -> Iterator[Problem]:
    """Under another law than `balanced`: whole sets of twins, and runs on both sides."""
    if coins.law == "balanced":
        return
    rows = runs // twins
    if runs % twins:
        yield Problem(
            path="twins",
            message=f"{runs} runs cannot be divided into sets of {twins} twins; set runs to a multiple of {twins}",
        )
    elif rows < 2:
        yield Problem(
            path="runs", message=f"`coins: {{law: {coins.law}}}` needs at least {2 * twins} runs, but runs is {runs}"
        )
    elif coins.rate is not None and coins.law == "rate" and not 0 < round(coins.rate * rows) < rows:
        yield Problem(
            path="coins.rate",
            message=f"{coins.rate:g} of {rows} draws is {round(coins.rate * rows)}, so that no run would be "
            f"{'in' if coins.rate < 0.5 else 'out'}; use a rate from {1 / rows:.2g} to {1 - 1 / rows:.2g}, or more "
            "runs",
        )


def _coins_read(coins: Coins, estimators: Sequence[Estimator], probes: Sequence[Probe]) -> Iterator[Problem]:
    """Components whose results are not right under this law."""
    for field, components in (("probes", probes), ("estimators", estimators)):
        for position, component in enumerate(components):
            for path, part in not_reading_law(component, f"{field}[{position}]", coins.law):
                yield Problem(path=path, message=explain_law(part, coins.law))


def _coins_decide(coins: Coins, injections: Sequence[Injection], runs: int) -> Iterator[Problem]:
    """Where runs have rates of their own, every audit example is a player whose inclusion is random."""
    for position, injection in enumerate(() if coins.as_law.compares_sides else injections):
        if not has_coins(injection, runs):
            yield Problem(
                path=f"injections[{position}].coins",
                message=f"the examples of this injection are in in every run, but random inclusion by {coins.law} is "
                "about all examples. Leave this line out, or write `coins: {law: balanced}` in the scenario",
            )


def _one_of_removes(coins: Coins, exclusion: str) -> Iterator[Problem]:
    """Replacement rows would be those of all examples but one, which shows the one as well."""
    if coins.law == "one_of" and exclusion != "remove":
        yield Problem(
            path="exclusion",
            message=f"is {exclusion}, but under `coins: {{law: one_of}}` the replacement rows of all other examples "
            "would show which one is in; write exclusion: remove",
        )


def _coins_elsewhere(coins: Coins, leave_out: LeaveOut, roster: str, after: object) -> Iterator[Problem]:
    """Parts of a scenario that have fair coins of their own, or that read how many runs an example is in."""
    if coins.law == "balanced":
        return
    parts = {
        "leave_out.clients": (leave_out.clients not in (0, ()), "clients are left out of half of the runs"),
        "roster": (roster == "pilot", "a pilot run has half of the examples"),
        "then": (after is not None, "phases compare runs with and without what is forgotten"),
    }
    for path, (is_there, why) in parts.items():
        if is_there:
            yield Problem(
                path=path,
                message=f"{why}, which does not suit random inclusion by {coins.law}; leave it out, or write "
                "`coins: {law: balanced}`",
            )
