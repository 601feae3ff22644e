"""Results of parts, compared with their contracts: a result that does not fit fails the run, by the name of the part.

Each function is given the guard around the call and what the part returned, and hands it back as it is used. The
contracts themselves stand in `contracts/`; here is only what would otherwise give wrong numbers, or an error far
from its cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray, Params
from fedmem.contracts.audit_set import InjectionPlan, References
from fedmem.contracts.data import Dataset, Examples, Space
from fedmem.guards.guarding import Guard

if TYPE_CHECKING:
    from fedmem.contracts.client import Outcome

SLACK = 1e-9
"""By how much a probability may exceed one, through rounding."""


def a_kind(value: object) -> str:
    """Type and shape of a value, for messages.

    >>> a_kind(np.zeros((2, 3))), a_kind(None), a_kind([1])
    ('float64 of shape (2, 3)', 'nothing', 'list')
    """
    if value is None:
        return "nothing"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return type(value).__name__


# --- data sets -----------------------------------------------------------------------------------------------------


def dataset_of(guard: Guard, data: object) -> Dataset:
    """A data set whose rows and targets are of the right types, finite, and within their ranges."""
    if not isinstance(data, Dataset):
        count = f" of {len(data)}" if isinstance(data, tuple | list) else ""
        guard.reject(
            f"it returned {a_kind(data)}{count}. It should be a mapping of arrays, such as {{x, y}} or {{x, y, x_test, "
            "y_test, clients}. A tuple (x, y) or (x, y, x_test, y_test) is possible too, a pair of torch data sets "
            "(train, test), or a fedmem.contracts.data.Dataset"
        )
    classes = data.num_classes
    guard.require(
        is_whole(classes) and classes > 0, f"num_classes is {cut_text(classes)}, should be a whole number above 0"
    )
    for name, rows in (("train", data.train), ("test", data.test)):
        _rows(guard, name, rows, classes, data)
    guard.require(len(data.train), "there are no training rows; a data set needs one at least")
    shapes = data.train.inputs.shape[1:], data.test.inputs.shape[1:]
    guard.require(
        shapes[0] == shapes[1], f"inputs of train have shape {shapes[0]}, those of test {shapes[1]}; give equal ones"
    )
    problem = data.modality.problem(shapes[0], classes)
    guard.require(not problem, f"its modality is {data.modality.kind}, but {problem}")
    if classes == 1 and not data.modality.tokens:
        guard.require(
            data.modality.densities,
            "num_classes is 1. A model of one class answers nothing: its loss is 0 whatever it learns. Give two "
            "classes, or a modality whose rows have no labels, such as UnlabelledImages",
        )
    if data.natural is not None:
        natural = np.asarray(data.natural)
        guard.require(
            natural.shape == (len(data.train),) and natural.dtype.kind in "iu",
            f"natural is {a_kind(natural)}, should be whole numbers of shape ({len(data.train)},): an owner for each "
            "training row",
        )
    _check_names(guard, data)
    return data


def _check_names(guard: Guard, data: Dataset) -> None:
    """Columns with a value for each training row, a name for each class, and a name for each owner."""
    for name, values in data.columns.items():
        length = len(values)
        guard.require(
            length == len(data.train),
            f"columns[{name!r}] has {length} values, but there are {len(data.train)} training rows; give one for each",
        )
    owners = 0 if data.natural is None else 1 + int(np.max(data.natural, initial=-1))
    for name, names, needed in (
        ("class_names", data.class_names, data.num_classes),
        ("client_names", data.client_names, owners),
    ):
        guard.require(
            not names or len(names) >= needed,
            f"{name} has {len(names)} names, but {needed} are needed; name all of them, or none",
        )
        guard.require(len(set(names)) == len(names), f"{name} has a name twice; each should be one of its own")


def _rows(guard: Guard, name: str, rows: object, classes: int, data: Dataset | Space) -> None:
    """Inputs, targets and ids of some examples."""
    tokens, token_inputs = data.modality.tokens, data.modality.token_inputs
    if not isinstance(rows, Examples):
        guard.reject(f"{name} is {a_kind(rows)}, should be fedmem.contracts.data.Examples")
    for field, dtype in (
        ("inputs", np.int64 if token_inputs else np.float32),
        ("targets", np.int64),
        ("ids", np.int64),
    ):
        array = getattr(rows, field)
        if not isinstance(array, np.ndarray) or array.dtype != dtype:
            guard.reject(f"{name}.{field} is {a_kind(array)}, should be an array of {np.dtype(dtype)}")
    shape = rows.inputs.shape if tokens else rows.inputs.shape[:1]
    guard.require(
        rows.targets.shape == shape,
        f"{name}.targets has shape {rows.targets.shape}, should be {shape} beside inputs of {rows.inputs.shape}",
    )
    _check_range(guard, f"{name}.targets", rows.targets, -1 if tokens else 0, classes - 1)
    if tokens:
        _check_range(guard, f"{name}.inputs", rows.inputs, 0, classes - 1)
    elif not token_inputs:
        require_finite(guard, f"{name}.inputs", rows.inputs)
    if data.modality.is_binary:
        guard.require(
            bool(((rows.inputs == 0) | (rows.inputs == 1)).all()),
            f"{name}.inputs has values between 0 and 1, and the data are binary: each value should be 0 or 1",
        )


def _check_range(guard: Guard, name: str, values: NDArray[Any], low: int, high: int) -> None:
    if values.size and (values.min() < low or values.max() > high):
        place = tuple(np.argwhere((values < low) | (values > high))[0].tolist())
        guard.reject(f"{name} is {values[place]} at row {place[0]}, should be {low} to {high}")


def require_finite(guard: Guard, name: str, values: NDArray[Any]) -> None:
    """Every value is a number. One pass without a copy where all are."""
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(values.sum(dtype=np.float64)):
            return
    wrong = ~np.isfinite(values)
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0].tolist())
        guard.reject(
            f"{name} has {int(wrong.sum())} values that are not finite, the first {values[place]} at row {place[0]}"
        )


# --- partitions and injections -------------------------------------------------------------------------------------


def parts_of(guard: Guard, rows_by_client: object) -> Sequence[Any]:
    """Arrays of whole numbers, one for each client; which rows they must be is checked where they are used."""
    if not isinstance(rows_by_client, Sequence):
        guard.reject(f"it returned {a_kind(rows_by_client)}, should be one array of rows for each client")
    for client, rows in enumerate(rows_by_client):
        if not isinstance(rows, np.ndarray) or rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
            guard.reject(f"the rows of client {client} are {a_kind(rows)}, should be whole numbers of shape (n,)")
    return rows_by_client


def shifted_of(guard: Guard, values: object, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inputs as a client sees them: of the same type and shape, in [0, 1]."""
    if not isinstance(values, np.ndarray) or (values.dtype, values.shape) != (inputs.dtype, inputs.shape):
        guard.reject(f"it returned {a_kind(values)}, should be {a_kind(inputs)}")
    require_finite(guard, "it", values)
    guard.require(not values.size or (values.min() >= 0 and values.max() <= 1), "it returned values outside of [0, 1]")
    return values


def count_of(guard: Guard, value: object) -> int:
    """A whole number, 0 or more."""
    if not is_whole(value) or value < 0:  # type: ignore[operator]
        guard.reject(f"it returned {cut_text(value)}, should be a whole number, 0 or more")
    return int(value)  # type: ignore[call-overload, no-any-return]


def injected_of(guard: Guard, planned: object, *, clients: int, classes: int, space: Space) -> InjectionPlan:
    """The plan of an injection: examples like those of the data, each with an owner and copies."""
    if not isinstance(planned, InjectionPlan):
        guard.reject(f"it returned {a_kind(planned)}, should be fedmem.contracts.audit_set.InjectionPlan")
    for name, rows in (("examples", planned.examples), ("extra", planned.extra)):
        if rows is None:
            continue
        _rows(guard, name, rows, classes, space)
        guard.require(
            rows.inputs.shape[1:] == space.shape,
            f"{name}.inputs has shape {rows.inputs.shape}, should be (n, {', '.join(map(str, space.shape))})",
        )
    count = len(planned.examples)
    for name, low, high in (("owner", -1, clients - 1), ("copies", 1, 2**31 - 1)):
        values = getattr(planned, name)
        _whole_numbers(guard, name, values, count)
        _check_range(guard, name, values, low, high)
    copies = int(planned.copies.sum())
    highest = -1 if planned.extra is None else len(planned.extra) - 1
    for name, low, high in (("copy_index", -1, highest), ("owners", -1, clients - 1)):
        values = getattr(planned, name)
        if values is not None:
            _whole_numbers(guard, name, values, copies)
            _check_range(guard, name, values, low, high)
    if planned.taken is not None:
        _check_ids(guard, "taken", planned.taken)
    for name in ("start", "stop"):
        value = getattr(planned, name)
        guard.require(
            value is None or (is_whole(value) and value >= 0), f"{name} is {cut_text(value)}, should be a round"
        )
    count_of(guard, planned.unmasked)
    return planned


def references_of(
    guard: Guard, references: object, name: str, *, count: int, like: NDArray[Any], tokens: bool
) -> References:
    """Fresh members of a family, of the shape of the inputs."""
    if isinstance(references, np.ndarray):
        references = References(family=name, inputs=references)
    if not isinstance(references, References):
        guard.reject(
            f"it returned {a_kind(references)}, should be an array of inputs, or fedmem.contracts.audit_set.References"
        )
    inputs: Any = references.inputs
    dtype = np.dtype(np.int64 if tokens else np.float32)
    if not isinstance(inputs, np.ndarray) or inputs.dtype != dtype or inputs.shape[1:] != like.shape:
        guard.reject(f"inputs are {a_kind(inputs)}, should be {dtype} of shape {(count, *like.shape)}")
    guard.require(
        tokens or len(inputs) == count,
        f"it returned {len(inputs)} references, should be the {count} that were asked for",
    )
    if not tokens:
        require_finite(guard, "inputs", inputs)
    return references


def _check_ids(guard: Guard, name: str, values: object) -> None:
    """Ids of rows, each once; which rows they must be is checked where they are used."""
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "iu":
        guard.reject(f"{name} is {a_kind(values)}, should be whole numbers of shape (n,), the ids of rows")
    distinct, times = np.unique(values, return_counts=True)
    guard.require(len(distinct) == len(values), f"{name} has id {distinct[times.argmax()] if len(values) else 0} twice")


def _whole_numbers(guard: Guard, name: str, values: object, count: int) -> None:
    if not isinstance(values, np.ndarray) or values.shape != (count,) or values.dtype.kind not in "iu":
        guard.reject(f"{name} is {a_kind(values)}, should be whole numbers of shape ({count},)")


# --- samplers ------------------------------------------------------------------------------------------------------


def cohort_of(guard: Guard, cohort: object, clients: int) -> IntArray:
    """Client numbers, sorted, each once."""
    try:
        array = np.asarray(cohort)
    except ValueError:
        array = np.empty(1, dtype=object)
    if cohort is None or array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        description = a_kind(cohort) if array.dtype.kind in "OUS" else a_kind(array)
        guard.reject(f"it returned {description}, should be whole numbers of shape (n,): the clients of the round")
    numbers = array.astype(np.int64)
    outside = numbers[(numbers < 0) | (numbers >= clients)]
    if outside.size:
        guard.reject(f"it returned client {outside[0]}, should be numbers from 0 to {clients - 1}")
    steps = np.diff(numbers)
    if (steps <= 0).any():
        place = int(np.flatnonzero(steps <= 0)[0])
        first, other = numbers[place : place + 2].tolist()
        problem = f"client {first} twice" if first == other else f"client {first} before {other}"
        guard.reject(f"it returned {problem}, should be sorted clients, each once")
    return numbers


def reachable_of(guard: Guard, is_reachable: object, clients: int) -> BoolArray:
    """The clients that can be reached."""
    if not isinstance(is_reachable, np.ndarray) or is_reachable.dtype != np.bool_ or is_reachable.shape != (clients,):
        guard.reject(f"it returned {a_kind(is_reachable)}, should be bool of shape ({clients},)")
    return is_reachable


def probabilities_of(guard: Guard, probabilities: object, cohort: IntArray, clients: int) -> FloatArray | None:
    """Inclusion probabilities, above 0 for every client that was picked."""
    if probabilities is None:
        return None
    if (
        not isinstance(probabilities, np.ndarray)
        or probabilities.dtype.kind != "f"
        or probabilities.shape != (clients,)
    ):
        guard.reject(f"it returned {a_kind(probabilities)}, should be float64 of shape ({clients},)")
    # extremes first: nothing is made for each client where all is well, and NaN is in no range
    if not (probabilities.min(initial=0.0) >= 0 and probabilities.max(initial=0.0) <= 1 + SLACK):
        client = int(np.flatnonzero(~((probabilities >= 0) & (probabilities <= 1 + SLACK)))[0])
        guard.reject(f"it returned {probabilities[client]} for client {client}, should be a probability")
    never = cohort[probabilities[cohort] == 0]
    if never.size:
        guard.reject(f"it returned probability 0 for client {never[0]}, which the sampler has picked in this round")
    return probabilities


# --- clients and models --------------------------------------------------------------------------------------------


def batches_of(guard: Guard, batches: object) -> IntArray:
    """Positions among the rows of a client, (steps, width); which rows they are is checked for all clients at once."""
    if not isinstance(batches, np.ndarray) or batches.ndim != 2 or batches.dtype.kind not in "iu":
        guard.reject(f"it returned {a_kind(batches)}, should be whole numbers of shape (steps, batch_size)")
    return batches


def tensors(guard: Guard, name: str, values: object, like: Params) -> None:
    """Parameters with the names, shapes and types of others."""
    if not isinstance(values, Mapping):
        guard.reject(f"{name} is {a_kind(values)}, should be tensors by name")
    odd = sorted(set(values) ^ set(like), key=str)
    if odd:
        verb = "lacks" if odd[0] in like else "has an unknown"
        guard.reject(f"{name} {verb} parameter {odd[0]!r}; it must have those of the model: {_first_names(like)}")
    for key, value in like.items():
        tensor = values[key]
        if getattr(tensor, "shape", None) != value.shape or getattr(tensor, "dtype", None) != value.dtype:
            guard.reject(f"{name}[{key!r}] is {a_kind(tensor)}, should be {a_kind(value)}")


def outcome_of(guard: Guard, outcome: object, before: Params) -> Outcome:
    """The results of a client: two models like the one that it was given, tensors that it remembers, and scalars."""
    from fedmem.contracts.client import Outcome

    if not isinstance(outcome, Outcome):
        guard.reject(f"it returned {a_kind(outcome)}, should be fedmem.contracts.client.Outcome")
    tensors(guard, "sent", outcome.sent, before)
    if outcome.kept is not outcome.sent:
        tensors(guard, "kept", outcome.kept, before)
    for name, part in (("memory", outcome.memory), ("report", outcome.report)):
        if not isinstance(part, Mapping):
            guard.reject(f"{name} is {a_kind(part)}, should be tensors by name")
        for key, value in part.items():
            if not hasattr(value, "numel") or (name == "report" and value.numel() != 1):
                description = "a tensor of one number" if name == "report" else "a tensor"
                guard.reject(f"{name}[{key!r}] is {a_kind(value)}, should be {description}")
    return outcome


def logits_of(guard: Guard, outputs: Any, shape: tuple[int, ...]) -> None:
    """Logits of the right shape, floating numbers."""
    problem = wrong_logits(outputs, shape)
    if problem:
        guard.reject(problem)


def wrong_logits(outputs: Any, shape: tuple[int, ...], batch: tuple[int, ...] = ()) -> str | None:
    """The fault of the outputs of a network for a batch of this shape; None where they are logits.

    >>> str(wrong_logits((1, 2), (2, 10), (2, 1, 8, 8))).partition(',')[0]
    'for a batch of shape (2'
    """
    asked = f"for a batch of shape {batch} " if batch else ""
    if not hasattr(outputs, "is_floating_point"):  # no tensor
        what = a_kind(outputs) if outputs is None else f"a {a_kind(outputs)}"
        return f"{asked}it returned {what}, should be floating logits of shape {shape}; return the logits alone"
    if tuple(outputs.shape) == shape and outputs.is_floating_point():
        return None
    remedy = ""
    if tuple(outputs.shape) != shape:
        remedy = "; one number for each class, which the argument num_classes says, and a row for each example"
    return f"{asked}it returned {a_kind(outputs)}, should be floating logits of shape {shape}{remedy}"


# --- strategies ----------------------------------------------------------------------------------------------------


# --- probes and estimators -----------------------------------------------------------------------------------------


# --- words ---------------------------------------------------------------------------------------------------------


def is_whole(value: object) -> bool:
    """Whether a value is a whole number of Python or numpy; True and False are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a real number of Python or numpy; True and False are none."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def cut_text(value: object) -> str:
    """A value as a message shows it: at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _first_names(names: Iterable[str]) -> str:
    all_names = list(names)
    return ", ".join(all_names[:4]) + (f" and {len(all_names) - 4} more" if len(all_names) > 4 else "")
