"""Conditions between the parts of a scenario; each check names the numbers and the remedy.

The parameters of a check are the fields of the scenario that it reads. Where one of them is itself wrong, the check is
left out, so that one mistake is reported once and hides no other.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fedmem.contracts.injection import Injection, injection_declaration
from fedmem.errors import Problem
from fedmem.privacy import client_noise, guaranteed_bounds, mechanism_alarms, mechanisms
from fedmem.scenario.check_aims import _aims_at_earlier, _aims_read, _aims_unshifted, _triggers_read
from fedmem.scenario.check_attacks import _initial_models
from fedmem.scenario.check_client_shards import (
    _shards_left,
    _shards_of_clients,
    _shards_of_networks,
    _shards_trained,
    _shards_trained_again,
    _shards_unlearnt,
    _shards_watched,
)
from fedmem.scenario.check_cohorts import (
    _cohort,
    _enough_clients,
    _free_cohort,
    _learning,
    _left_out,
    _picked_by_coins,
    _preference,
    _roster,
    _separation,
    _somebody_to_leave_out,
    _whole_cohort,
)
from fedmem.scenario.check_coins import (
    _coin_fields,
    _coins_decide,
    _coins_elsewhere,
    _coins_read,
    _enough_coins,
    _one_of_removes,
)
from fedmem.scenario.check_included import _each_drawn_alone, _groups_are_drawn
from fedmem.scenario.check_influence import _influence_read
from fedmem.scenario.check_measuring import (
    _attack_series,
    _check_duplicates,
    _enough_runs,
    _enough_to_sum,
    _estimator_levels,
    _even_rounds,
    _held_back,
    _levels,
    _observed_rounds,
    _probes,
    _same_facts,
    _saved_models,
    _signals,
    _signals_of_attacks,
    _something_to_estimate,
    _sums_read,
)
from fedmem.scenario.check_normalisation import (
    _normalised_in_batches,
    _normalised_locally,
    _normalised_privately,
)
from fedmem.scenario.check_phases import (
    _check_unfolding,
    _forgotten,
    _phase_cohorts,
    _phase_noise,
    _phase_state,
    _removed_places,
)
from fedmem.scenario.check_probes import _injections_named, _noise_unknown, _replacements_read
from fedmem.scenario.check_relearning import _learnt_again, _relearning_compared, _relearning_read
from fedmem.scenario.check_series import _every_round, _margins_alone, _signals_of_every_round
from fedmem.scenario.check_sets import _population, _sets
from fedmem.scenario.check_tied_dropout import (
    _tied_centrally,
    _tied_gradients,
    _tied_layers,
    _tied_privately,
    _tied_units_read,
)
from fedmem.scenario.check_training import (
    _aggregates,
    _canary_clients,
    _check_central,
    _check_payload_is_understood,
    _deduplication,
    _executor,
    _flower,
    _means,
    _noise_of_the_clip,
    _personal,
    _precision,
    _rule,
    _schedule,
    _training_read,
)
from fedmem.scenario.check_twins import _independent_runs, _twin_noise, _twins, _twins_compared
from fedmem.scenario.check_unlearners import (
    _phase_compared,
    _unlearner_first,
    _unlearner_models,
    _unlearner_place,
    _unlearner_population,
    _unlearner_strategy,
)
from fedmem.scenario.coins import Coins


def problems(values: Mapping[str, Any]) -> list[Problem]:
    """Every conflict between these fields of a scenario, in the order of the checks below."""
    conflicts: list[Problem] = []
    for check in CHECKS:
        names = inspect.signature(check).parameters
        if all(name in values for name in names):
            conflicts += check(**{name: values[name] for name in names})
    return conflicts


def _runs(runs: int, coins: Coins) -> Iterator[Problem]:
    if runs > 1 and runs % 2 and coins.law == "balanced":
        yield Problem(
            path="runs",
            message=f"{runs} is odd, but every audit example must be in exactly half of the runs; "
            f"use {runs + 1} (or 1, for a single federation)",
        )


def _names(injections: Sequence[Injection]) -> Iterator[Problem]:
    counts = Counter(injection.name for injection in injections)
    earlier_names: set[str] = set()
    for position, injection in enumerate(injections):
        # names are joined by commas and hyphens in the settings of measurements
        if not re.fullmatch(r"[A-Za-z0-9_]+", injection.name):
            yield Problem(
                path=f"injections[{position}].label",
                message=f"{injection.name!r} cannot name a kind; use letters, digits and underscores only, such as "
                f"label: {re.sub(r'[^A-Za-z0-9]+', '_', injection.name).strip('_') or 'kind'}",
            )
        if injection.name in earlier_names:
            yield Problem(
                path=f"injections[{position}]",
                message=f"{counts[injection.name]} injections are called {injection.name!r} and could not be "
                f"distinguished; give this one a label of its own, such as label: {injection.name}_{position}",
            )
        earlier_names.add(injection.name)


def _check_owners(injections: Sequence[Injection], clients: int) -> Iterator[Problem]:
    for position, injection in enumerate(injections):
        path, selection = f"injections[{position}].clients", injection_declaration(injection).clients
        if isinstance(selection, tuple):
            for place, client in enumerate(selection):
                if isinstance(client, int) and client >= clients:
                    yield Problem(
                        path=f"{path}[{place}]",
                        message=f"client {client} does not exist, there are {clients}; use 0 to {clients - 1}, "
                        "or raise clients",
                    )
        elif isinstance(selection, Mapping) and selection.get("count", 0) > clients:
            yield Problem(
                path=f"{path}.count",
                message=f"{selection['count']} clients cannot be drawn from {clients}; use at most {clients}, or all, "
                "or raise clients",
            )


def _windows(injections: Sequence[Injection], rounds: int, after: object) -> Iterator[Problem]:
    """Windows count the rounds from the first training on, which is checked on its own."""
    if after is not None:
        return
    for position, injection in enumerate(injections):
        start = injection_declaration(injection).start
        if start is not None and start > rounds:
            yield Problem(
                path=f"injections[{position}].start",
                message=f"round {start} never happens, there are {rounds}, so that nothing would be trained on in any "
                f"run; use at most {rounds}, or raise rounds",
            )


CHECKS: tuple[Callable[..., Iterator[Problem]], ...] = (
    _runs,
    _coin_fields,
    _enough_coins,
    _coins_read,
    _coins_decide,
    _one_of_removes,
    _coins_elsewhere,
    _twins,
    _twin_noise,
    _independent_runs,
    _twins_compared,
    _removed_places,
    _check_unfolding,
    _phase_noise,
    _phase_state,
    _phase_cohorts,
    _forgotten,
    _unlearner_place,
    _unlearner_population,
    _unlearner_first,
    _unlearner_models,
    _unlearner_strategy,
    _phase_compared,
    _learnt_again,
    _relearning_read,
    _relearning_compared,
    _groups_are_drawn,
    _each_drawn_alone,
    _aims_at_earlier,
    _aims_read,
    _aims_unshifted,
    _triggers_read,
    _cohort,
    _separation,
    _preference,
    _learning,
    _picked_by_coins,
    _held_back,
    _schedule,
    _training_read,
    _aggregates,
    _replacements_read,
    _noise_unknown,
    _injections_named,
    _means,
    _enough_clients,
    _whole_cohort,
    _check_payload_is_understood,
    _personal,
    _deduplication,
    _normalised_privately,
    _normalised_in_batches,
    _normalised_locally,
    _tied_layers,
    _tied_privately,
    _tied_gradients,
    _tied_centrally,
    _tied_units_read,
    _shards_of_clients,
    _shards_left,
    _shards_trained,
    _shards_of_networks,
    _shards_watched,
    _shards_unlearnt,
    _shards_trained_again,
    _noise_of_the_clip,
    mechanisms.problems,
    client_noise.record_adjacency,
    client_noise.problems,
    guaranteed_bounds.problems,
    mechanism_alarms.problems,
    _canary_clients,
    _check_central,
    _observed_rounds,
    _levels,
    _enough_to_sum,
    _sums_read,
    _probes,
    _saved_models,
    _signals,
    _signals_of_attacks,
    _influence_read,
    _check_duplicates,
    _same_facts,
    _estimator_levels,
    _even_rounds,
    _every_round,
    _signals_of_every_round,
    _margins_alone,
    _names,
    _check_owners,
    _windows,
    _left_out,
    _somebody_to_leave_out,
    _population,
    _sets,
    _enough_runs,
    _attack_series,
    _initial_models,
    _something_to_estimate,
    _roster,
    _executor,
    _precision,
    _rule,
    _free_cohort,
    _flower,
)
