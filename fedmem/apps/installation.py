"""The parts of an installation and their problems: versions, devices, cores, cache, disk, extras.

Nothing here uses the network.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fedmem.errors import FedmemError
from fedmem.processes import cores
from fedmem.wording import bytes_text

MIN_FREE = 10**9
"""Bytes of free disk space below which there is a problem."""

_LIBRARIES = ("torch", "flwr", "numpy", "scipy", "pandas", "scikit-learn")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line about the installation, and what is wrong with it, each problem with its remedy."""

    title: str
    text: str
    problems: tuple[str, ...] = ()


def examine(runs: Path | str = "runs") -> tuple[Finding, ...]:
    """Look at everything once. `runs` is where results would go.

    >>> [finding.title for finding in examine()][:4]
    ['fedmem', 'python', 'packages', 'devices']
    """
    from fedmem.fetched.files import cache_folder

    cache, runs = cache_folder(), Path(runs)
    parts: tuple[Callable[[], Finding], ...] = (
        _fedmem,
        _python,
        _packages,
        _devices,
        _cores,
        lambda: _cache(cache),
        lambda: _place("disk", "results", runs.absolute()),
        lambda: _place("disk", "cache", cache),
        _extras,
    )
    return tuple(part() for part in parts)


def _fedmem() -> Finding:
    from fedmem.contracts.families import FAMILIES
    from fedmem.scenario.catalogue import kinds
    from fedmem.shipped.files import folder, scenario_names

    package, names = Path(__file__).resolve().parents[1], scenario_names()
    problems, num_kinds = [], 0
    if not names:
        problems.append(f"the shipped scenarios are missing in {folder()}; install fedmem again")
    try:
        num_kinds = sum(len(kinds(family)) for family in FAMILIES)
    except FedmemError as error:
        problems.append(str(error))
    version = _version("fedmem") or "not installed, used from its folder"
    text = f"{version}, in {package}; {len(names)} shipped scenarios, {num_kinds} components"
    return Finding(title="fedmem", text=text, problems=tuple(problems))


def _python() -> Finding:
    return Finding(title="python", text=f"{platform.python_version()}, {sys.executable}; {platform.platform()}")


def _packages() -> Finding:
    problems = tuple(_unmet(_requirements("")))
    versions = ", ".join(f"{name} {_version(name) or 'missing'}" for name in _LIBRARIES)
    return Finding(title="packages", text=versions, problems=problems)


def _devices() -> Finding:
    try:
        import torch

        names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        texts = [f"{part.name} ({bytes_text(part.total_memory)})" for part in names]
    except (ImportError, OSError, RuntimeError) as error:
        cause = str(error).partition("\n")[0]
        return Finding(
            title="devices", text="unknown", problems=(f"torch does not work: {cause}; install torch again",)
        )
    return Finding(title="devices", text=", ".join(["cpu", *texts]) + ("" if texts else "; torch finds no GPU"))


def _cores() -> Finding:
    usable = cores()
    threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if os.environ.get(name)}
    text = ", ".join(f"{name}={value}" for name, value in threads.items()) or "as many threads as cores"
    return Finding(title="cores", text=f"{usable} of {os.cpu_count() or usable} usable; {text}")


def _cache(cache: Path) -> Finding:
    from fedmem.federation.fetch import published_items
    from fedmem.fetched.files import state

    states = {name: state(item) for name, item in published_items().items()}
    by_state = {
        word: [name for name, this in states.items() if this == one]
        for word, one in (("fetched", "whole"), ("damaged", "damaged"), ("not fetched", "missing"))
    }
    text = "; ".join(f"{word}: {', '.join(names)}" for word, names in by_state.items() if names)
    problems = [f"{name} in {cache} is damaged; run: fedmem fetch {name} --force" for name in by_state["damaged"]]
    return Finding(title="cache", text=f"{cache} (FEDMEM_CACHE); {text}", problems=tuple(problems))


def _place(title: str, purpose: str, place: Path) -> Finding:
    """Free space and permission to write at a folder, or where it would be created."""
    existing = next((folder for folder in (place, *place.parents) if folder.exists()), place)
    remedy = (
        "set FEDMEM_CACHE to a folder of yours" if purpose == "cache" else "start in a folder of yours, or use --out"
    )
    try:
        free = shutil.disk_usage(existing).free
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        problem = f"{purpose} cannot be written to {place}: {error.strerror or error}; {remedy}"
        return Finding(title=title, text=f"{purpose} in {place}: not writable", problems=(problem,))
    problem = f"only {bytes_text(free)} are free for {purpose} in {place}; free some space, or {remedy}"
    text = f"{purpose} in {place}: writable, {bytes_text(free)} free"
    return Finding(title=title, text=text, problems=() if free >= MIN_FREE else (problem,))


def _extras() -> Finding:
    """Optional extras: installed, or the line that installs each."""
    texts = []
    for extra in _extra_names():
        missing = [text for text in _requirements(extra) if any(_unmet([text]))]
        quoted = " ".join(f"'{text}'" for text in missing)
        texts.append(f"{extra}: pip install {quoted}" if missing else f"{extra}: installed")
    return Finding(title="extras", text="; ".join(texts) or "unknown, because fedmem is not installed")


def extra_requirements(extra: str) -> list[str]:
    """The requirements of an optional extra of fedmem here, as pip takes them; empty if fedmem is not installed.

    >>> extra_requirements("no such extra")
    []
    """
    return _requirements(extra) if extra in _extra_names() else []


def _version(name: str) -> str:
    """The version of an installed package; empty if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _extra_names() -> Sequence[str]:
    try:
        names = metadata.metadata("fedmem").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return ()
    return sorted(name for name in names if name not in _OF_DEVELOPERS)


_OF_DEVELOPERS = ("test", "docs")


def _requirements(extra: str) -> list[str]:
    """The requirements of fedmem, with an extra or without, each without its condition."""
    from packaging.requirements import Requirement

    try:
        texts = metadata.requires("fedmem") or []
    except metadata.PackageNotFoundError:
        return []
    chosen = []
    for requirement in map(Requirement, texts):
        marker, requirement.marker = requirement.marker, None
        needs_extra = marker is not None and "extra" in str(marker)
        if needs_extra == bool(extra) and (marker is None or marker.evaluate({"extra": extra})):
            chosen.append(str(requirement))
    return chosen


def _unmet(texts: Sequence[str]) -> Iterator[str]:
    """Requirements, with those of their extras, that are missing or have another version, and the remedy."""
    from packaging.requirements import Requirement

    for text in texts:
        requirement = Requirement(text)
        version = _version(requirement.name)
        if not version or not requirement.specifier.contains(version, prereleases=True):
            state = f"{requirement.name} is {version or 'missing'}"
            yield f"{state}, but fedmem needs {text}; run: pip install '{text}'"
            continue
        for extra in sorted(requirement.extras):
            yield from _unmet(_extra_of(requirement.name, extra))


def _extra_of(name: str, extra: str) -> list[str]:
    """The requirements that an extra of another package adds here."""
    from packaging.requirements import Requirement

    found = [Requirement(text) for text in metadata.requires(name) or []]
    chosen = [one for one in found if one.marker is not None and one.marker.evaluate({"extra": extra})]
    chosen = [one for one in chosen if "extra" in str(one.marker)]
    return [f"{one.name}{one.specifier}" for one in chosen]
