"""Code and files that a run was made with, so that a later change of them is noticed."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.contracts.data import ReadsFiles
from fedmem.contracts.families import kind_of, nested_components
from fedmem.contracts.flower_strategy_adapter import FlowerStrategyAdapter
from fedmem.contracts.model import model_declaration
from fedmem.results.module_graph import imported_files, is_local
from fedmem.scenario.installed_parts import installed_parts

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


PACKAGES = ("fedmem", "flwr", "torch", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "pydantic", "greenlet")
"""The packages on which the numbers depend; the manifest holds the version of each."""


ENGINES = {"flower": ("ray",)}
"""Modules that an engine needs in addition."""


def versions(engine: str = "lockstep") -> dict[str, str]:
    """The installed versions of these packages, and of what the engine needs.

    >>> versions()["torch"] == version("torch")
    True
    """
    return {package: _version(package) for package in (*PACKAGES, *ENGINES.get(engine, ()))}


@cache
def _version(package: str) -> str:
    """That of an installed package, whose metadata are parsed once."""
    return version(package)


def code() -> str:
    """A sha256 of all files of fedmem and its strategies, which a version under development does not distinguish.

    >>> len(code())
    64
    """
    import fedmem.strategies

    package, strategies = Path(__file__).parents[1], Path(fedmem.strategies.__path__[0])
    # in a checkout, strategies lie elsewhere and `rglob` does not follow the link
    files = {file.relative_to(package).as_posix(): file for file in package.rglob("*.py")}
    files |= {f"strategies/{file.relative_to(strategies).as_posix()}": file for file in strategies.rglob("*.py")}
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def components_of(scenario: Scenario) -> dict[str, str]:
    """Of every component of a scenario, nested ones too, its kind and a sha256 of the file that it is written in.

    The id of a run is a hash of the scenario; this is what the scenario cannot say.

    >>> from fedmem.scenario.loading import parse_scenario
    >>> codes = components_of(parse_scenario("{rounds: 1, clients: 2, dataset: {kind: synthetic}, model: {kind: mlp}}"))
    >>> sorted(codes)[:3], len(codes["mlp"])
    (['everyone', 'fedavg', 'iid'], 64)
    """
    digests = {}
    for component in _components(scenario):
        digests[kind_of(component)] = digest_of(Path(inspect.getfile(_class_of(component))))
    return dict(sorted(digests.items()))


def modules_of(scenario: Scenario) -> dict[str, str]:
    """A sha256 of each local module that the component modules import, transitively, and one for fedmem as a whole.

    A module is local where its file lies outside the standard library and the installed packages. The other modules of
    a component's own package also count. `fedmem` stands for all of its modules that a run of this scenario can
    execute, without the files of `components_of`. A change to the command line or to a report changes no run.

    >>> from fedmem.scenario.loading import parse_scenario
    >>> list(modules_of(parse_scenario("{rounds: 1, clients: 2, dataset: {kind: synthetic}, model: {kind: mlp}}")))
    ['fedmem']
    """
    roots = {_class_of(component).__module__ for component in _components(scenario)}
    packages = {root.partition(".")[0] for root in roots} - _VERSIONED
    inside = imported_files([*_COMPUTING, *roots], lambda name, _: name.startswith(_OURS) or name in roots)
    outside = imported_files(
        [root for root in roots if not root.startswith(_OURS)],
        lambda name, file: (
            name.partition(".")[0] not in _VERSIONED and (is_local(file) or name.partition(".")[0] in packages)
        ),
    )
    digest = hashlib.sha256()
    for name, file in inside.items():
        if name not in roots:
            digest.update(f"{name} {digest_of(file)}\n".encode())
    others = {name: digest_of(file) for name, file in outside.items() if name not in roots}
    return {"fedmem": digest.hexdigest(), **others}


_OURS = "fedmem."
_VERSIONED = {"fedmem", "flwr", "torch", "numpy", "scipy", "sklearn", "pandas", "pyarrow"}
"""Packages that are compared as a whole, or by their versions."""

_COMPUTING = ("fedmem.execution.run", "fedmem.engines.shared_training")
"""The modules that train, measure and write runs."""


def files_of(scenario: Scenario) -> dict[str, str]:
    """For each component that reads files, under its kind and their names: a sha256 of their names and contents.

    The same for the weights that runs start from.

    A component names the files that it reads by `input_files`. If a component that is not fedmem's own does not, each
    of its fields that names a file or a folder counts. Names are relative, so that a folder may be moved.

    >>> from fedmem.scenario.loading import parse_scenario
    >>> files_of(parse_scenario("{rounds: 1, clients: 2, dataset: {kind: synthetic}, model: {kind: mlp}}"))
    {}
    """
    digests: dict[str, str] = {}
    components = list(_components(scenario))
    readers = [(kind_of(component), _files(component)) for component in components]
    readers += [
        (name, _files(section))
        for name, section in scenario
        if isinstance(section, ReadsFiles) and not any(section is component for component in components)
    ]
    for reader, files in readers:
        if files:
            name, digest = f"{reader} ({_list_files(files)})", _digest_of_files(files)
            # two components of one kind may read files of one name in two folders
            digests[name] = digest if name not in digests else _join(digests[name], digest)
    return dict(sorted(digests.items()))


def _join(*digests: str) -> str:
    """One sha256 of several, in this order."""
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def packages_of(scenario: Scenario) -> dict[str, str]:
    """The versions of the installed packages that register components of this scenario, by their names.

    Those that its model declares to depend on count as well, where they are installed.

    >>> from fedmem.scenario.loading import parse_scenario
    >>> packages_of(parse_scenario("{rounds: 1, clients: 2, dataset: {kind: synthetic}, model: {kind: mlp}}"))
    {}
    """
    roots = {_class_of(component).__module__.partition(".")[0] for component in _components(scenario)}
    parts = (part for part in installed_parts() if part.target.partition(":")[0].partition(".")[0] in roots)
    versions_by_name = {part.package: part.version for part in parts}
    for package in model_declaration(scenario.model).packages:
        with contextlib.suppress(PackageNotFoundError):
            versions_by_name[package] = _version(package)
    return dict(sorted(versions_by_name.items()))


def kinds_with_unknown_files(scenario: Scenario) -> list[str]:
    """The kinds of the components of a user that make the data and do not say by `input_files` which files they read.

    They may read files that no field names, so that what they make has to be compared itself.

    >>> from fedmem.scenario.loading import parse_scenario
    >>> kinds_with_unknown_files(parse_scenario("{rounds: 1, clients: 2, dataset: {kind: digits}, model: {kind: mlp}}"))
    []
    """
    makers = nested_components((scenario.dataset, scenario.partition, scenario.injections))
    foreign = [part for _, part in makers if not type(part).__module__.startswith(_OURS)]
    return sorted({kind_of(part) for part in foreign if not isinstance(part, ReadsFiles)})


def provenance_of_measuring(scenario: Scenario, manifest: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The manifest's account of code, after the estimates of a run were made again by current code.

    The file of an estimator that only estimates is the current one. Where other code differs, trainings and estimates
    are of two versions. The hash is then of both, so that neither version takes the run for its own.
    """
    estimating = {kind_of(part) for _, part in nested_components(tuple(scenario.estimators))}
    others = (getattr(scenario, name) for name in type(scenario).model_fields if name != "estimators")
    training = {kind_of(part) for _, part in nested_components(tuple(others))}
    then, now = manifest.get("components", {}), components_of(scenario)
    components = {
        kind: digest if kind in estimating - training else _of_both(then.get(kind), digest)
        for kind, digest in now.items()
    }
    then, now = manifest.get("modules", {}), modules_of(scenario)
    names = sorted(then.keys() | now.keys())
    modules = {name: _of_both(then.get(name), now.get(name)) for name in names}
    then, now = manifest.get("packages", {}), packages_of(scenario)
    trained = packages_of(scenario.model_copy(update={"estimators": ()})).keys()
    packages = {
        name: version if name not in trained or then.get(name) == version else f"{then.get(name)}, then {version}"
        for name, version in now.items()
    }
    return {"components": components, "modules": modules, "packages": packages}


def _of_both(then: str | None, now: str | None) -> str:
    """The digest of one version, or one of two."""
    return then if then is not None and then == now else _join(str(then), str(now))


def provenance_of(scenario: Scenario) -> dict[str, dict[str, str]]:
    """The entries of a manifest on code and files; a finished run is not served if they have changed."""
    return {
        "components": components_of(scenario),
        "modules": modules_of(scenario),
        "files": files_of(scenario),
        "packages": packages_of(scenario),
    }


def changed_inputs(scenario: Scenario, manifest: dict[str, Any]) -> list[str]:
    """Inputs that changed since this manifest: kinds, modules, and files with the kind that reads them."""
    now = provenance_of(scenario)
    then = {name: manifest.get(name, {}) for name in now}
    changes = [kind for kind, digest in now["components"].items() if then["components"].get(kind) != digest]
    for name in sorted(now["modules"].keys() | then["modules"].keys()):
        if now["modules"].get(name) != then["modules"].get(name):
            changes.append(name if name == "fedmem" else f"module {name}")
    for name in sorted(now["packages"].keys() | then["packages"].keys()):
        if now["packages"].get(name) != then["packages"].get(name):
            changes.append(f"the version of the package {name}")
    differing = now["files"].items() ^ then["files"].items()
    return [*changes, *(f"the files of {name}" for name in dict.fromkeys(sorted(name for name, _ in differing)))]


def commit() -> str | None:
    """The commit of the checkout that fedmem runs from, with `+` if files differ from it; None for a package."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    head = _git(folder, "rev-parse", "HEAD")
    return f"{head}+" if head and _git(folder, "status", "--porcelain", "--", "fedmem", "strategies") else head or None


def _git(folder: Path, *words: str) -> str:
    process = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    return process.stdout.strip()


def digest_of(file: Path) -> str:
    """The sha256 of a file; `missing` where there is none."""
    try:
        status = file.stat()
    except OSError:
        return "missing"
    return _digest(file, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=100_000)
def _digest(file: Path, *_: int) -> str:
    """The same of a version of a file, which is read once in a process."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files(component: Any) -> tuple[Path, ...]:
    """The files that a component reads, sorted."""
    if isinstance(component, ReadsFiles):
        return tuple(sorted(set(component.input_files())))
    if type(component).__module__.startswith(_OURS):
        return ()
    return tuple(
        sorted(
            {file for item in fields(component) for file in _files_of_field(item.name, getattr(component, item.name))}
        )
    )


_PLACES = ("path", "file", "folder", "dir", "root")
"""Words in the names of fields that may name a folder; any text may name a file."""


def _files_of_field(name: str, value: Any) -> Iterator[Path]:
    """The files that the value of a field names: itself, those in a folder, or those of its items."""
    if isinstance(value, tuple | list):
        for item in value:
            yield from _files_of_field(name, item)
    elif isinstance(value, Path) or (isinstance(value, str) and value and "\0" not in value):
        try:
            place = Path(value).expanduser()
            if place.is_file():
                yield place
            elif any(word in name for word in _PLACES) and place.is_dir():
                yield from (file for file in place.rglob("*") if file.is_file())
        except (OSError, RuntimeError):  # longer than a name may be, or of no user
            return


def _digest_of_files(files: Sequence[Path]) -> str:
    """One sha256 of files and their names from the innermost folder that holds all of them."""
    root = os.path.commonpath([file.absolute().parent for file in files])
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{os.path.relpath(file.absolute(), root)}\0{digest_of(file)}\n".encode())
    return digest.hexdigest()


def _list_files(files: Sequence[Path]) -> str:
    """The names of a few files, or the folder of many."""
    if len(files) <= 2:
        return ", ".join(file.name for file in files)
    return f"{Path(os.path.commonpath([file.absolute().parent for file in files])).name}/"


def _class_of(component: object) -> type:
    """The class that does the work of a component: of a Flower strategy its own."""
    if isinstance(component, FlowerStrategyAdapter):
        module, _, name = component.kind.partition(":")
        cls: type = getattr(importlib.import_module(module), name)
        return cls
    return type(component)


def _components(scenario: Scenario) -> Iterator[object]:
    """Every component of a scenario, nested ones too, with those by which the phases before it were trained."""
    values = [getattr(scenario, name) for name in type(scenario).model_fields]
    for before in scenario.phases[:-1]:
        # all else is the same in all phases, or changes no model
        parts = ((getattr(before, name), getattr(scenario, name)) for name in _OF_TRAINING)
        values += [part for part, own in parts if part != own]
    return (component for _, component in nested_components(values))


_OF_TRAINING = ("sampler", "client", "defences", "strategy")
"""The fields with components that a phase may replace, and that decide about its models."""
