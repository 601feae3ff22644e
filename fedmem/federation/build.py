"""From a scenario to a federation: load, reserve, partition, inject, flip coins, draw replacement rows.

Nothing trains here.

Everything that must not be trained on by a client (test, population, the reserve rows of injections and replacement
rows) is set aside before partitioning. With a partition by owner, the reserve of a client is set aside after it, from
the client's own rows (`own_rows`). Each step draws from a stream of its own, so changing one leaves the draws of
the others alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset, Examples, FeatureShift
from fedmem.contracts.federation import Federation, RowColumns
from fedmem.contracts.injection import CanaryInjection
from fedmem.contracts.model import frozen_tensors, network_notes
from fedmem.contracts.ragged import Ragged
from fedmem.contracts.reserve import Reserve
from fedmem.contracts.validation import dataset_of
from fedmem.datasets._own import as_dataset
from fedmem.errors import ComponentError, Problem, ScenarioError
from fedmem.federation.compatibility import mismatches, require_base_rows, require_readable, unsuitable_networks
from fedmem.federation.duplicates import duplicates_of, effects_of
from fedmem.federation.feature_shift import as_seen_by, replacement_pairs, show, viewers
from fedmem.federation.held_rows import draw_own
from fedmem.federation.initial_weights import initialise, mode_of
from fedmem.federation.layout import _lay_out, _Plan, _references, _trained_rows, count_rows
from fedmem.federation.normalisation import warnings_of
from fedmem.federation.phases import (
    absent_clients,
    draws_of,
    removed_exclusion,
    removed_rows,
    require_masked,
    require_whole,
    with_windows,
)
from fedmem.federation.pilot_draws import with_pilot, without_pilot
from fedmem.federation.prefix import prefix_of
from fedmem.federation.pretrained import same_data_warnings
from fedmem.federation.row_budget import make_row_budget, shortages, test_rows_of
from fedmem.federation.source_rows import source_rows
from fedmem.federation.triggers import triggered_rows
from fedmem.federation.untrained_shards import untrained_shards_warnings
from fedmem.guards.guarding import Guard
from fedmem.seeding import stream

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


def build(scenario: Scenario, data: Dataset | None = None) -> Federation:
    """The federation of a scenario, with the coins and replacement rows of all its runs; `data` as `load` returns them.

    Guarantees:

    - every row is stored once, and the only thing made for each client is where its rows begin;
    - test, population, base rows, audit examples, the rows that stand for them and replacement rows are disjoint rows
      of the data set;
    - every column of the coins has exactly R/2 ones (R = 1: a fair coin) and is independent of all else;
    - under `exclusion: replace` a client has equally many rows in every run and round, and a replacement row is used
      once in a run;
    - no client holds a class that an injection reserves, but for the rows that it injects;
    - with a partition by owner, real audit examples and replacement rows of a client are its own rows, but for those
      that `foreign_rows` counts;
    - with a partition that shifts features, real rows of clients and of the audit set are as their client sees them.
      Labels, ids, coins and all draws are as without it;
    - torch's global generator is left as it was;
    - where a scenario is central, one client holds all rows that the clients would hold, and nothing else is different;
    - a pilot run has coins, replacement rows and weights of its own, and leaves those of all other runs as they are;
    - clients that deduplicate train on fewer rows, in every run by the same rule, and nothing else is different;
    - twins train on the same rows, and the first R / twins runs are those of the scenario without twins.

    Errors: `ScenarioError` if the data have too few rows or a part cannot read them, `ComponentError` from components.
    """
    data = load(scenario) if data is None else data
    problems = mismatches(scenario, data) or shortages(scenario, data, make_row_budget(scenario, data))
    if problems:
        raise ScenarioError(problems)
    plan = _lay_out(scenario, data)
    require_base_rows(scenario, plan.base)
    sources = source_rows(data, plan.audit.examples)
    audit, draw_order = with_windows(scenario, plan.audit)
    plan = replace(plan, audit=audit)
    require_masked(scenario, audit, plan.unmasked, plan.certain)
    require_whole(scenario, audit)
    if scenario.has_pilot:
        plan = replace(plan, audit=with_pilot(scenario, plan.audit, plan.certain))
    module, initial = initialise(scenario, data)
    if problems := unsuitable_networks(scenario, module, data):
        raise ScenarioError(problems)
    audit_start = len(plan.base.rows)
    extra_start = audit_start + len(plan.audit)
    replacement = _draw_replacements(scenario, plan, extra_start + len(plan.extra), draw_order)
    # own replacement rows follow those of the reserve
    plan = replace(plan, reserve=Examples.concatenate([plan.reserve, plan.own_rows]))
    if isinstance(scenario.partition, FeatureShift):
        plan, replacement = _shift_features(scenario.partition, plan, replacement, extra_start + len(plan.extra))
    trained = _trained_rows(plan, audit_start, extra_start)
    replacement = _with_own_replacements(scenario, plan, replacement, extra_start)
    replacement = np.where(plan.unmasked, trained, replacement)
    if scenario.removed is not None and removed_exclusion(scenario) == "remove":
        replacement[:, removed_rows(scenario, len(plan.audit))[plan.audit.subject]] = -1
    test_rows = test_rows_of(scenario, data)
    test = data.test if test_rows is None else data.test.take(test_rows)
    whole = Federation(
        store=_store(scenario, data.train, plan),
        base=Ragged(rows=np.arange(audit_start), starts=plan.base.starts),
        audit=plan.audit,
        audit_start=audit_start,
        trained_rows=trained,
        replacement=replacement,
        test=test,
        test_rows=test_rows,
        population=plan.population,
        references=tuple(
            _references(scenario, injection, plan.space)
            for injection in scenario.injections
            if isinstance(injection, CanaryInjection)
        ),
        model=module,
        initial=initial,
        frozen={name: value for name, value in frozen_tensors(module).items() if name not in initial},
        mode=mode_of(scenario, module, data),
        initials=tuple(initialise(scenario, data, run)[1] for run in range(plan.audit.runs))
        if scenario.initial_weights == "per_run"
        else (),
        shifted=isinstance(scenario.partition, FeatureShift),
        modality=data.modality,
        num_classes=data.num_classes,
        client_names=plan.names,
        class_names=data.class_names,
        learnt=data.learnt,
        counts=_counts(plan.counts, plan),
        foreign_rows=plan.foreign,
        notes=plan.notes,
        warnings=(*plan.warnings, *same_data_warnings(scenario)),
        sources=sources,
        initial_notes=network_notes(module),
        absent_clients=absent_clients(scenario),
        row_columns=_row_columns(data),
        triggers=triggered_rows(scenario.injections, test, plan.space),
    )
    require_readable(scenario, whole)
    whole = replace(_with_duplicates(scenario, whole), prefix=prefix_of(scenario, whole))
    if scenario.central == "shuffled":
        whole = _pool_clients(whole, by_client=False)
    whole = replace(whole, warnings=(*whole.warnings, *warnings_of(whole, scenario.client, scenario.probes)))
    if scenario.central == "by_client":
        return _pool_clients(whole, by_client=True)
    whole = replace(whole, warnings=(*whole.warnings, *untrained_shards_warnings(scenario, whole)))
    return without_pilot(whole) if scenario.has_pilot else whole


def _row_columns(data: Dataset) -> RowColumns:
    """The columns by row; `class` has the names of labels, or their numbers."""
    columns = {**data.sensitive, **data.columns}
    if not data.train.several_targets:
        labels = data.train.targets
        columns.setdefault("class", np.array(data.class_names)[labels] if data.class_names else labels)
    return RowColumns(ids=data.train.ids, columns=columns)


def _with_duplicates(scenario: Scenario, whole: Federation) -> Federation:
    """The federation with the rule by which its clients leave out duplicates, if they do, and what it does to rows."""
    duplicates = duplicates_of(scenario.client, whole.store)
    if duplicates is None:
        return whole
    notes, warnings = effects_of(duplicates, whole)
    return replace(whole, duplicates=duplicates, notes=(*whole.notes, *notes), warnings=(*whole.warnings, *warnings))


def _pool_clients(whole: Federation, *, by_client: bool) -> Federation:
    """The federation with one client that holds all rows, coins and replacement rows."""
    audit = whole.audit
    return replace(
        whole,
        base=Ragged.of([np.concatenate([np.empty(0, dtype=np.int64), *whole.base])]),
        client_names=(),
        audit=replace(audit, owner=np.where(audit.owner >= 0, 0, audit.owner).astype(np.int32), copy_owner=None),
        unpooled=whole,
        by_client=by_client,
    )


def _counts(rows: Mapping[str, int], plan: _Plan) -> dict[str, int]:
    """Where each row of the data set went: the budget, changed by what the partition and injections did."""
    base, own = len(plan.base.rows), len(plan.own_rows)
    left_out = rows["base"] - base - plan.num_taken - own
    counts = dict(rows) | {
        "base": base,
        "audit": rows["audit"] + plan.num_taken,
        "replacements": rows["replacements"] + own,
    }
    return counts | ({"left out": left_out} if left_out else {})


def budget(scenario: Scenario) -> dict[str, int]:
    """The number of rows of each purpose: test, population, audit, `replacements`, `reserved_rows` and base; their sum
    is total.

    `audit` counts the real rows that injections take. `replacements` counts replacement rows. `reserved_rows` counts
    rows of reserved classes that no client trains on. `base` is what is left to partition, of which a partition may
    leave some out; it is negative if the data are too few. Builds no model.
    """
    return dict(count_rows(scenario, load(scenario)))


def check(scenario: Scenario, data: Dataset | None = None) -> list[Problem]:
    """Every reason why `build` would fail, found by trying each step that does not depend on a failed one."""
    try:
        data = load(scenario) if data is None else data
    except ComponentError as error:
        return [Problem(path=error.path, message=error.message)]
    except ScenarioError as error:
        return list(error.problems)
    problems = mismatches(scenario, data)
    if problems:
        return problems  # all that follows would complain of the same
    problems = shortages(scenario, data, make_row_budget(scenario, data))
    # Partition and injection are tried only with enough rows: their complaints would repeat the shortage.
    try:
        if not problems:
            require_base_rows(scenario, _lay_out(scenario, data).base)
    except ComponentError as error:
        problems.append(Problem(path=error.path, message=error.message))
    try:
        module, _ = initialise(scenario, data)
        problems += unsuitable_networks(scenario, module, data)
    except ComponentError as error:
        problems.append(Problem(path=error.path, message=error.message))
    return problems


def require(scenario: Scenario, data: Dataset | None = None) -> None:
    """Errors: one `ScenarioError` with every reason why `build` would fail, each with its place in the file."""
    problems = check(scenario, data)
    if problems:
        raise ScenarioError([scenario.place(problem) for problem in problems])


def load(scenario: Scenario) -> Dataset:
    """The data set, split into train and test."""
    rng = stream(scenario.seed, "dataset")
    with Guard("dataset", scenario.dataset, "load") as guard:
        return dataset_of(guard, as_dataset(scenario.dataset.load(rng), rng))


def _draw_replacements(scenario: Scenario, plan: _Plan, start: int, draw_order: IntArray) -> IntArray:
    """(R, copies in all) rows of the store that stand in for outs, -1 for none; the reserve rows begin at `start`.

    An in example that is not trained on in some round needs some too, which are drawn in the order `draw_order` (m,).
    """
    audit = plan.audit
    phase = 0 if scenario.after is None else scenario.after.phase
    subject = audit.subject
    replacement = np.full((audit.runs, len(subject)), -1, dtype=np.int64)
    if scenario.exclusion == "remove":
        return replacement
    reserve = Reserve(plan.reserve, owners=plan.reserve_owners)
    has_own = np.isin(audit.injection[subject], [pool.injection for pool in plan.own])
    drawn = (plan.replacements < 0) & ~has_own
    if plan.reserve_owners is not None:
        drawn &= ~plan.unmasked  # a client has few rows, and nothing ever stands in for an unmasked copy
    owner = np.where(drawn, audit.owners, -1)
    copies = np.flatnonzero(owner >= 0)
    copies_of_client = Ragged.group_by_owner(copies, owner[copies], len(plan.base))
    for run in range(audit.runs):
        coin_row = run if audit.coin_row is None else int(audit.coin_row[run])  # twins train on the same rows
        run_reserve = reserve.fork()
        for draw in draws_of(phase):
            is_due = draw.is_due(draw_order, audit.is_in[run])
            if draw.position and not is_due.any():
                continue
            rng = stream(scenario.seed, draw.stream, run=coin_row)
            # In random order, so that no client is always the last to choose when a label runs out.
            order = rng.permutation(len(plan.base))
            for client in order[copies_of_client.sizes[order] > 0].tolist():
                to_replace = copies_of_client[client][is_due[subject[copies_of_client[client]]]]
                replacement[run, to_replace] = start + run_reserve.positions_like(
                    plan.labels[client], len(to_replace), rng, client
                )
    draw_own(scenario, audit, plan.own, replacement, start + len(plan.reserve), draw_order)
    return replacement


def _with_own_replacements(scenario: Scenario, plan: _Plan, replacement: IntArray, extra_start: int) -> IntArray:
    """`replacement` with the rows that injections made themselves, wherever an example may be out."""
    if scenario.exclusion == "remove":
        return replacement
    return np.where((plan.replacements >= 0) & (plan.audit.owners >= 0), extra_start + plan.replacements, replacement)


def _shift_features(
    partition: FeatureShift, plan: _Plan, replacement: IntArray, reserve_start: int
) -> tuple[_Plan, IntArray]:
    """The plan with all real rows outside of `base` as their clients see them, and its replacement rows."""
    clients = len(plan.base)
    viewer, extra_viewer = viewers(plan.audit, plan.copy_index, len(plan.extra))
    changed, rows, client = replacement_pairs(plan.audit, replacement, reserve_start, clients)
    shifted = replace(
        plan,
        audit=replace(plan.audit, examples=as_seen_by(partition, clients, plan.audit.examples, viewer)),
        extra=as_seen_by(partition, clients, plan.extra, extra_viewer),
        reserve=as_seen_by(partition, clients, plan.reserve.take(rows), client),
    )
    return shifted, changed


def _store(scenario: Scenario, train: Examples, plan: _Plan) -> Examples:
    """Base rows as their clients see them, audit examples, the rows that stand for them, and replacement rows."""
    others = Examples.concatenate([plan.audit.examples, plan.extra, plan.reserve])
    count = len(plan.base.rows)
    inputs = np.empty((count + len(others), *train.inputs.shape[1:]), dtype=others.inputs.dtype)
    # Straight into its place: the data set is the largest thing there is, and it is here twice already.
    np.take(train.inputs, plan.base.rows, axis=0, out=inputs[:count], mode="clip")
    inputs[count:] = others.inputs
    if isinstance(scenario.partition, FeatureShift):
        owner = np.repeat(np.arange(len(plan.base)), plan.base.sizes)
        show(scenario.partition, len(plan.base), inputs[:count], owner)
    return Examples(
        inputs=inputs,
        targets=np.concatenate([plan.targets, others.targets]),
        ids=np.concatenate([train.ids[plan.base.rows], others.ids]),
    )
