"""One guard around every call into a part of a scenario: a part that fails, fails the run, and by its name.

Parts may be third-party code. Any exception of a part, including `SystemExit`, becomes a `PartError`. Its message says
which part failed, in which method, round, run and client, at which line of its own file, and why. Ctrl-C stays Ctrl-C,
and errors that fedmem raises on purpose pass as they are. Nothing is looked up before something fails, so a guard in a
loop costs less than a microsecond.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, NoReturn, Protocol, runtime_checkable

from greenlet import GreenletExit

from fedmem.errors import FedmemError, RunError
from fedmem.guards.places import Defined, shorten_path

NOT_OURS = (KeyboardInterrupt, GreenletExit)
"""The exceptions that no guard turns into another error: the user's Ctrl-C, and the end of a coroutine."""

LINES, CHARACTERS = 8, 1200
"""How much of the text of an exception a message shows."""

PLACES = ("round", "level", "run", "client")
"""Where a call belongs to, in the order in which a message names it."""

_NO_MEMORY = ("can't allocate memory", "not enough memory", "Maximum allowed dimension exceeded", "array is too big")

_TRACES: dict[str, str] = {}


@runtime_checkable
class Representing(Protocol):
    """A part that messages name by another: an adapter of Flower's by its kind, one that applies a rule by the rule."""

    @property
    def message_name(self) -> object:
        """The part, or its kind."""


class PartError(RunError):
    """A part of the scenario failed: it raised, or returned what it must not.

    Attributes:
        part: Family and kind, such as `sampler my.module:Mine`.
        method: Which of its methods was called.
        cause: Type and text of the exception, or what is wrong with the returned value.
        at: File and line of the part where it failed, empty where they are not known.
        place: Round, level, run and client of the call, as far as they apply.

    >>> str(PartError("sampler my.module:Mine", "cohort", "ValueError: no", at="mine.py:3", place={"round": 2}))
    'round 2: sampler my.module:Mine failed in cohort: ValueError: no (mine.py:3)'
    """

    def __init__(
        self, part: str, method: str, cause: str, *, at: str = "", place: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(part, method, cause)
        self.part = part
        self.method = method
        self.cause = cause
        self.at = at
        self.place = {name: value for name, value in (place or {}).items() if value is not None}

    def __str__(self) -> str:
        where = ", ".join(f"{name} {self.place[name]}" for name in PLACES if name in self.place)
        line = f" ({self.at})" if self.at else ""
        return f"{where}{': ' if where else ''}{self.part} failed in {self.method}: {self.cause}{line}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Made again from its parts, so that it can come from another process."""
        return _restore, (type(self), self.part, self.method, self.cause, self.at, self.place)

    def add_place(self, place: Mapping[str, object]) -> None:
        """Adds what is known further out and was not known where the error was raised."""
        self.place = {name: value for name, value in place.items() if value is not None} | self.place


def _restore(cls: type[PartError], part: str, method: str, cause: str, at: str, place: dict[str, object]) -> PartError:
    return cls(part, method, cause, at=at, place=place)


class Guard:
    """A block that calls a part; any exception of the part becomes a `PartError`.

    Args:
        family: Family of the part, as in YAML: `sampler`.
        part: The component, or its name.
        method: What is called.
        others: Further parts (family, component) that the call may run, as a client's step runs the model. The
            innermost of them that was at work is the one that failed.
        where: Further places, computed after a failure only.
        whole: Whether errors that fedmem raises on purpose are failures of the part as well.
        place: Round, level, run and client of the call, as far as they are known before.

    >>> with Guard("sampler", "my.module:Mine", "cohort", round=2):
    ...     raise SystemExit(0)
    Traceback (most recent call last):
    fedmem.guards.guarding.PartError: round 2: sampler my.module:Mine failed in cohort: SystemExit: 0
    """

    __slots__ = ("_called_parts", "_family", "_method", "_part", "_place", "_where", "_whole")

    def __init__(
        self,
        family: str,
        part: object,
        method: str,
        *,
        others: Sequence[tuple[str, object]] = (),
        where: Callable[[], Mapping[str, object]] | None = None,
        whole: bool = False,
        **place: Any,
    ) -> None:
        self._family = family
        self._part = part
        self._method = method
        self._called_parts = others
        self._where = where
        self._whole = whole
        self._place = place

    def __enter__(self) -> Guard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, NOT_OURS):
            return
        if isinstance(error, PartError):
            error.add_place(self._places())
            return
        if isinstance(error, FedmemError) and not self._whole:
            return
        raise self._error(error) from error

    def reject(self, text: str) -> NoReturn:
        """The part returned what it must not: `text` says what, and what is allowed."""
        name = part_name(self._family, self._part)
        raise PartError(
            name, self._method, text, at=_place_of_definition(self._part, self._method), place=self._places()
        )

    def require(self, right: object, text: str) -> None:
        """Call `reject` unless `right` is true."""
        if not right:
            self.reject(text)

    def _places(self) -> dict[str, object]:
        if self._where is None:
            return self._place
        try:
            return {**self._where(), **self._place}
        except Exception:  # the failure that is to be reported matters more
            return self._place

    def _error(self, error: BaseException) -> PartError:
        family, part, method = _innermost_part(error, [*self._called_parts, (self._family, self._part)], self._method)
        return PartError(
            part_name(family, part), method, cause_of(error), at=line_of(error, part), place=self._places()
        )


def describe(error: BaseException, parts: Sequence[tuple[str, object]], method: str) -> str:
    """The failure of a client as text, since some failures are tolerated: type, text, which part, and its line.

    The last of `parts` is taken to have failed unless another was at work; `method` is that of this one. The traceback
    is remembered for `with_trace`.

    >>> describe(ValueError("no"), [("client", "my.module:Mine")], "step")
    'ValueError: no (in step of client my.module:Mine)'
    """
    if isinstance(error, PartError):
        inside = ", ".join(part for part in (f"in {error.method} of {error.part}", error.at) if part)
        text = f"{error.cause} ({inside})"
    else:
        family, part, called = _innermost_part(error, parts, method)
        inside = ", ".join(word for word in (f"in {called} of {part_name(family, part)}", line_of(error, part)) if word)
        text = f"{cause_of(error)} ({inside})"
    remember(text, lambda: "".join(traceback.format_exception(error)))
    return text


def remember(text: str, trace: Callable[[], str]) -> None:
    """Keep the traceback behind the text of a failure, for `with_trace`; that of equal texts once."""
    if text not in _TRACES:
        while len(_TRACES) >= 16:
            del _TRACES[next(iter(_TRACES))]
        _TRACES[text] = trace()


def trace_of(text: str) -> str:
    """The traceback that was remembered for a text, or for its beginning; empty where there is none."""
    return next((trace for message, trace in _TRACES.items() if text.startswith(message)), "")


def with_trace(error: RunError, cause: str) -> RunError:
    """The error with the traceback of its cause as a note, as far as it is known."""
    trace = trace_of(cause)
    if trace:
        error.add_note(f"The first of these failures:\n{trace}")
    return error


def rescue(error: BaseException) -> PartError | None:
    """The error of a part that no guard was around, known by its traceback; None where no such part is in it.

    Such a part is an object of a class outside of fedmem, of which fedmem has called a method.
    """
    frames = _frames(error)
    first = next((i for i, (frame, _) in enumerate(frames) if _is_ours(frame.f_code.co_filename)), None)
    if first is None:
        return None
    entered: FrameType | None = None
    outside = True
    for frame, _ in frames[first:]:
        in_part = _is_theirs(frame.f_code.co_filename)
        if in_part and outside and _is_theirs(_file_of(_owner(frame))):
            entered = frame
        outside = not in_part
    if entered is None:
        return None
    return PartError(part_name("part", _owner(entered)), entered.f_code.co_name, cause_of(error), at=line_of(error))


class Rescuing:
    """A block in which the error of a part that no guard is around becomes a `PartError` as well; see `rescue`."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, (*NOT_OURS, FedmemError)) or _of_machine(error):
            return
        part_error = rescue(error)
        if part_error is not None:
            raise part_error from error


def cause_of(error: BaseException) -> str:
    """Type and text of an exception, cut to a few lines.

    >>> cause_of(KeyError("w"))
    "KeyError: 'w'"
    """
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be formed)"
    lines = text.strip().splitlines()
    cut = "\n".join(lines[:LINES])[:CHARACTERS]
    text = cut + (" …" if len(cut) < len("\n".join(lines)) else "")
    if is_out_of_memory(error):
        text += (
            ". The machine has too little memory for this. Lower what is large in the scenario: references, "
            "bootstrap, runs, clients, rows of the data, or the width of the model"
        )
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch and numpy have their own words for it."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, (RuntimeError, ValueError)) and any(text in str(error) for text in _NO_MEMORY)


def _of_machine(error: BaseException) -> bool:
    """Whether memory, disk or network are at fault, which the command line says in its own words."""
    return is_out_of_memory(error) or (isinstance(error, OSError) and error.errno is not None)


def part_name(family: str, part: object) -> str:
    """Family and kind of a part.

    >>> from fedmem.errors import Problem
    >>> part_name("sampler", Problem(path="", message=""))
    'sampler fedmem.errors:Problem'
    """
    return f"{family} {part if isinstance(part, str) else _kind(part)}".strip()


def _kind(part: object) -> str:
    cls = type(part)
    if isinstance(part, Representing):
        return part.message_name if isinstance(part.message_name, str) else _kind(part.message_name)
    package, _, kind = cls.__module__.rpartition(".")
    shipped = package.startswith("fedmem.") and package.count(".") == 1
    return kind if shipped and not kind.startswith("_") else f"{cls.__module__}:{cls.__qualname__}"


def _innermost_part(error: BaseException, parts: Sequence[tuple[str, object]], method: str) -> tuple[str, object, str]:
    """The innermost part that was at work, and the method of it that had been called."""
    family, part = parts[-1]
    called, inside, outside = method, None, True
    for frame, _ in _frames(error):
        instance = frame.f_locals.get("self")
        culprit = (
            None
            if instance is None
            else next((candidate for candidate in parts if _is_part(instance, *candidate)), None)
        )
        if culprit is not None and (culprit[1] is not inside or outside):
            (family, part), called, inside = culprit, frame.f_code.co_name, culprit[1]
        # a part that fedmem calls again is entered by another method
        outside = culprit is None and not _is_theirs(frame.f_code.co_filename)
    if family == "model" and called in ("_wrapped_call_impl", "_call_impl", "__call__"):
        called = "forward"
    return family, part, called


def _is_part(instance: object, family: str, part: object) -> bool:
    """Whether this object is the part, or a layer of the model that the part is."""
    if instance is part:
        return True
    if family != "model":
        return False
    model = part
    modules = getattr(model, "modules", None)
    return callable(modules) and hasattr(instance, "forward") and any(layer is instance for layer in modules())


def line_of(error: BaseException, part: object = None) -> str:
    """File and line of the last frame outside of fedmem and of all libraries, else of the part's own module."""
    return line_in(_frames(error), part)


def line_in(frames: Iterable[tuple[FrameType, int]], part: object = None) -> str:
    """`line_of` for frames with their lines, the outermost first."""
    places, part_file = list(frames), _file_of(part)
    foreign_places = [place for place in places if _is_theirs(place[0].f_code.co_filename)]
    part_places = [place for place in places if part_file and place[0].f_code.co_filename == part_file]
    for candidates in (foreign_places, part_places):
        if candidates:
            frame, line = candidates[-1]
            return f"{shorten_path(frame.f_code.co_filename)}:{line}"
    return ""


def _frames(error: BaseException) -> list[tuple[FrameType, int]]:
    return list(traceback.walk_tb(error.__traceback__))


def _file_of(part: object) -> str:
    module = sys.modules.get("" if part is None or isinstance(part, str) else type(part).__module__)
    return getattr(module, "__file__", None) or ""


def _place_of_definition(part: object, method: str) -> str:
    """Where a method of a third-party part is defined."""
    if isinstance(part, Defined):
        return str(part._at)
    code = getattr(getattr(type(part), method, None), "__code__", None)
    if not isinstance(code, CodeType) or not _is_theirs(code.co_filename):
        return ""
    return f"{shorten_path(code.co_filename)}:{code.co_firstlineno}"


def _owner(frame: FrameType) -> object:
    """The object whose method a frame runs, None where it runs a function."""
    names = frame.f_code.co_varnames[:1] if frame.f_code.co_argcount else ()
    return frame.f_locals.get(names[0]) if names else None


@cache
def _is_theirs(file: str) -> bool:
    """Whether this is a file of the user's: no library, and none of fedmem's."""
    if not file or file.startswith("<") or _is_ours(file):
        return False
    return not file.startswith(_libraries())


@cache
def _is_ours(file: str) -> bool:
    import fedmem.strategies  # in a Flower bundle, this folder lies beside the others

    return file.startswith(
        tuple(f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], *fedmem.strategies.__path__))
    )


@cache
def _libraries() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    library_paths = {str(Path(paths[name])) for name in names if name in paths}
    return tuple(f"{path}{os.sep}" for path in {*library_paths, *(str(Path(path).resolve()) for path in library_paths)})
