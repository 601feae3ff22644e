"""The grid of a comparison: every setting with every seed, each a scenario of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.contracts.strategy import client_of
from fedmem.errors import ComponentError, Problem, ScenarioError
from fedmem.shipped.files import find_scenario

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

Setting = tuple[tuple[str, str], ...]
"""The settings that vary, in their order: the YAML path, and the value as it would be written after `--set`."""

_CLASS = re.compile(r"[\w.]+:(\w+)")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One scenario of a comparison: a setting of what varies, and a seed."""

    setting: Setting
    seed: int
    scenario: Scenario


def label_of(setting: Setting) -> str:
    """A short name of a setting: kinds and classes as they are, other values after the name of their field.

    >>> label_of((("strategy.kind", "krum"), ("client.lr", "0.1")))
    'krum, lr=0.1'
    >>> label_of((("strategy.kind", "my.module:Mine"), ("strategy", "{kind: krum, byzantine: 2}")))
    'Mine, krum byzantine=2'
    """
    return ", ".join(_label(path, value) for path, value in setting) or "as written"


def _label(path: str, value: str) -> str:
    name = path.rpartition(".")[2]
    if match := _CLASS.fullmatch(value):
        return match[1]
    if value.startswith("{") and value.endswith("}"):
        kind = re.search(r"\bkind: *([\w.:]+)", value)
        rest = re.sub(r"\bkind: *[\w.:]+,? *", "", value[1:-1]).strip(", ").replace(": ", "=")
        return f"{_label('kind', kind[1])} {rest}".strip() if kind else f"{name}={rest}"
    return value if name == "kind" else f"{name}={value}"


def parse_vary(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Parse the values that vary from texts `path=a,b,c`; commas within brackets or quotes belong to a value.

    >>> parse_vary(["strategy.kind=fedavg,krum", "sampler={kind: uniform, size: 5},{kind: everyone}"])["sampler"]
    ('{kind: uniform, size: 5}', '{kind: everyone}')

    Errors: `ScenarioError` with everything that is wrong.
    """
    values_by_path: dict[str, tuple[str, ...]] = {}
    problems = []
    for text in texts:
        path, equals, rest = (part.strip() for part in text.partition("="))
        values = tuple(_split(rest))
        message = ""
        if not equals or not path or not all(values):
            message = "should be path=value,value such as strategy.kind=fedavg,fedmedian"
        elif path in values_by_path:
            message = f"{path} is varied twice; give all its values at once"
        elif path != "speed.precision" and path.split(".")[0].split("[")[0] in ("name", "seed", "speed"):
            message = f"{path} cannot be varied: " + (
                "give seeds by --seeds, such as 0:10" if path == "seed" else "it changes no result"
            )
        elif twice := [value for value in dict.fromkeys(values) if values.count(value) > 1]:
            message = f"{twice[0]} is given twice; a setting is compared with others, not with itself"
        if message:
            problems.append(Problem(path="", message=message, source=f"--vary {text}"))
        values_by_path[path] = values
    if problems:
        raise ScenarioError(problems)
    return values_by_path


def _split(text: str) -> list[str]:
    """The parts between commas that stand in no bracket and no quotes.

    >>> _split("a, [1, 2],'x,y'")
    ['a', '[1, 2]', "'x,y'"]
    """
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def parse_seeds(given: str | int | Sequence[int]) -> tuple[int, ...]:
    """Seeds from a count, a range or a list; each once, in their order.

    A single number is a count: `5` are the seeds 0 to 4. A range is `0:10` (0 to 9). A list has commas, and may have
    ranges in it. The one seed 5 is `5:6`, or `[5]` where a list can be given.

    >>> parse_seeds("3"), parse_seeds("1,4,7"), parse_seeds("0:3,7"), parse_seeds("5:6"), parse_seeds([5])
    ((0, 1, 2), (1, 4, 7), (0, 1, 2, 7), (5,), (5,))

    Errors: `ScenarioError`.
    """
    if not isinstance(given, str | int):
        return _distinct_seeds(", ".join(map(str, given)), _listed_seeds(list(given)))
    text = str(given).strip().removeprefix("[").removesuffix("]")
    if re.fullmatch(r"\d+", text) and not str(given).strip().startswith("["):
        count = _seed(text, text)
        if not 1 <= count <= MAX_SEEDS:
            raise _wrong_seeds(
                text, f"should be a count from 1 to {MAX_SEEDS}; the one seed {text} is {text}:{count + 1}"
            )
        return tuple(range(count))
    seeds: list[int] = []
    for part in text.split(","):
        if not (match := re.fullmatch(r"\s*(\d+)\s*(?::\s*(\d+)\s*)?", part)):
            raise _wrong_seeds(
                text, "should be a count such as 10, a range such as 0:10 (0 to 9), or a list such as 1,2,5"
            )
        first, stop = _seed(text, match[1]), _seed(text, match[2] or "0")
        if match[2] and stop - first > MAX_SEEDS:
            raise _wrong_seeds(text, _TOO_LARGE)
        seeds += range(first, stop) if match[2] else [first]
    return _distinct_seeds(text, seeds)


MAX_SEEDS = 10**5
"""The most seeds of one study."""

_TOO_LARGE = f"is too large; seeds are below 2^63, and at most {MAX_SEEDS} of them"


def _listed_seeds(seeds: list[int]) -> list[int]:
    if wrong := [seed for seed in seeds if isinstance(seed, bool) or seed < 0]:
        raise _wrong_seeds(str(seeds), f"has {wrong[0]!r}; seeds are whole numbers from 0")
    return seeds


def _distinct_seeds(text: str, seeds: Sequence[int]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) < len(seeds):
        raise _wrong_seeds(text, f"names {'no seed' if not seeds else 'a seed twice'}; give each once, such as 0:10")
    if max(seeds) >= 2**63 or len(seeds) > MAX_SEEDS:
        raise _wrong_seeds(text, _TOO_LARGE)
    return tuple(seeds)


def _seed(text: str, digits: str) -> int:
    if len(digits.lstrip("0")) > 19:
        raise _wrong_seeds(text, _TOO_LARGE)
    return int(digits.lstrip("0") or "0")


def _wrong_seeds(text: str, message: str) -> ScenarioError:
    return ScenarioError([Problem(path="", message=message, source=f"--seeds {text}")])


def settings_of(vary: Mapping[str, Sequence[str]]) -> tuple[Setting, ...]:
    """Every combination, the last path varying fastest.

    >>> [label_of(one) for one in settings_of({"strategy.kind": ["fedavg", "krum"], "client.lr": ["1", "2"]})]
    ['fedavg, lr=1', 'fedavg, lr=2', 'krum, lr=1', 'krum, lr=2']
    """
    return tuple(tuple(zip(vary, values, strict=True)) for values in product(*vary.values()))


def cross(
    source: Path | str | Scenario, settings: Sequence[Setting], seeds: Sequence[int], overrides: Sequence[str] = ()
) -> tuple[Cell, ...]:
    """One scenario for each setting and seed, setting by setting.

    Args:
        source: a scenario file, or a scenario.
        settings: The changes of each setting, after `overrides`.
        seeds: replace the seed of the scenario.
        overrides: changes to all of them, `path=value` each.

    Guarantees:

    - all that does not depend on what varies is the same for one seed: data, coins, canaries and initial weights. Where
      the sampler does not vary, so is participation;
    - a strategy that names the client algorithm of its payload gets it, unless the client is given or varied.

    Errors: One `ScenarioError` with everything that is wrong in any of them. `ScenarioError` also where two are the
    same scenario.
    """
    cells, problems = cross_settings(source, settings, seeds, overrides)
    if problems:
        raise ScenarioError(problems)
    return cells


def cross_settings(
    source: Path | str | Scenario, settings: Sequence[Setting], seeds: Sequence[int], overrides: Sequence[str] = ()
) -> tuple[tuple[Cell, ...], list[Problem]]:
    """The same scenarios, as far as they are right, and everything that is wrong with the others."""
    cells: list[Cell] = []
    problems: dict[str, Problem] = {}
    for setting in settings:
        changes = [*overrides, *(f"{path}={value}" for path, value in setting)]
        try:
            client_changes = wanted_client(source, changes)
            cells += [
                Cell(
                    setting=setting,
                    seed=seed,
                    scenario=_load_setting(source, [*changes, *client_changes, f"seed={seed}"]),
                )
                for seed in seeds
            ]
        except ScenarioError as error:
            sources = vary_sources(setting)
            renamed_problems = (
                replace(original, source=sources.get(original.source, original.source)) for original in error.problems
            )
            problems |= {str(problem): problem for problem in renamed_problems}
    first: dict[str, Setting] = {}
    for cell in cells:
        other = first.setdefault(cell.scenario.id, cell.setting)
        if other != cell.setting:
            message = f"{label_of(other)} and {label_of(cell.setting)} are the same scenario; leave one of them out"
            problem = Problem(path="", message=message, source="--vary")
            problems[str(problem)] = problem
    return tuple(cells), list(problems.values())


def vary_sources(setting: Setting) -> dict[str, str]:
    """Map the name of each change of a scenario to the words of the user, as the source of a problem."""
    return {f"--set {path}={value}": f"--vary {path}={value}" for path, value in setting}


def wanted_client(source: Path | str | Scenario, changes: Sequence[str]) -> list[str]:
    """The change that gives the strategy the client algorithm that it names; none where that is there or decided."""
    from fedmem.scenario.catalogue import load
    from fedmem.scenario.scenario import default_kind

    if any(re.match(r"client(\.kind)?\s*=", change.strip()) for change in changes):
        return []
    tree = _tree(source, changes)
    kinds = {name: part.get("kind") if isinstance(part, dict) else None for name, part in tree.items()}
    try:
        client_kind = client_of(load("strategy", str(kinds.get("strategy", default_kind("strategy")))))
    except ComponentError:
        return []  # reported when the scenario is loaded
    return (
        [f"client.kind={client_kind}"]
        if client_kind is not None and kinds.get("client", default_kind("client")) != client_kind
        else []
    )


def _tree(source: Path | str | Scenario, changes: Sequence[str]) -> dict[str, Any]:
    """The values of a scenario before they are checked; mistakes are reported when it is loaded."""
    from fedmem.scenario.overrides import Origin, override
    from fedmem.scenario.yaml_source import read_file, read_text

    read = (
        read_file(find_scenario(source)) if isinstance(source, Path | str) else read_text(source.to_yaml(), source.name)
    )
    tree: dict[str, Any] = read.value if isinstance(read.value, dict) else {}
    override(tree, changes, Origin("", read.lines))
    return tree


def _load_setting(source: Path | str | Scenario, changes: Iterable[str]) -> Scenario:
    from fedmem.scenario.loading import load_scenario, parse_scenario

    if isinstance(source, Path | str):
        return load_scenario(source, list(changes))
    return parse_scenario(source.to_yaml(), source.name, list(changes))
