"""Tests of `fedmem/apps/installation.py`."""

from __future__ import annotations

import hashlib
import os
import shutil
from importlib import metadata
from pathlib import Path

import pytest

from fedmem.apps import installation
from fedmem.apps.installation import Finding, examine
from fedmem.contracts import families
from fedmem.fetched.files import Published


def finding(title: str, word: str = "", runs: Path | str = "runs") -> Finding:
    (result,) = [one for one in examine(runs) if one.title == title and word in one.text]
    return result


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDMEM_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_nothing_is_created(own_folders: Path) -> None:
    assert [problem for one in examine() for problem in one.problems] == []
    assert list(own_folders.iterdir()) == []


def test_fetched_missing_and_damaged_data_are_told_apart(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {"good": b"good", "bad": b"bad", "absent": b"absent"}
    items = {
        name: Published(name=name, licence="none", files={"f": hashlib.sha256(text).hexdigest()}, sources=())
        for name, text in contents.items()
    }
    monkeypatch.setattr("fedmem.federation.fetch.published_datasets", lambda: items)
    for name, text in (("good", b"good"), ("bad", b"other")):
        (own_folders / "cache" / name).mkdir(parents=True)
        (own_folders / "cache" / name / "f").write_bytes(text)
    cache = finding("cache")
    assert "fetched: good; damaged: bad; not fetched: absent" in cache.text
    assert len(cache.problems) == 1
    assert "fedmem fetch bad --force" in cache.problems[0]


def test_folders_that_cannot_be_written_are_problems(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_folders / "file").write_text("")
    monkeypatch.setenv("FEDMEM_CACHE", str(own_folders / "file" / "cache"))
    (problem,) = finding("disk", "cache").problems
    assert "FEDMEM_CACHE" in problem
    (problem,) = finding("disk", "results", own_folders / "file" / "runs").problems
    assert "--out" in problem


def test_full_disks_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding("disk", "results").problems == ()
    monkeypatch.setattr(installation, "MIN_FREE", shutil.disk_usage(".").total + 1)
    assert "free for results" in finding("disk", "results").problems[0]


REQUIRED = [
    "numpy>=1.26",
    "torch<1",
    "nothing-of-the-kind>=2",
    "flwr[simulation]; extra == 'flower'",
    "no-such-hub>=4; extra == 'hub'",
    "scipy>=1; extra == 'search'",
    "wanted-elsewhere; sys_platform == 'nowhere'",
]


@pytest.fixture
def required(monkeypatch: pytest.MonkeyPatch) -> None:
    of_others = metadata.requires
    monkeypatch.setattr(metadata, "requires", lambda name: [*REQUIRED] if name == "fedmem" else of_others(name))
    monkeypatch.setattr(installation, "_extra_names", lambda: ("flower", "hub", "search"))


@pytest.mark.usefixtures("required")
def test_missing_and_old_packages_are_problems() -> None:
    problems = finding("packages").problems
    assert len(problems) == 2
    assert "torch is" in problems[0]
    assert "pip install 'torch<1'" in problems[0]
    assert "nothing-of-the-kind is missing" in problems[1]


@pytest.mark.usefixtures("required")
def test_extras_are_installed_or_have_their_pip_line() -> None:
    text = finding("extras").text
    assert "hub: pip install 'no-such-hub>=4'" in text
    assert "search: installed" in text
    assert finding("extras").problems == ()


@pytest.mark.usefixtures("required")
def test_extra_of_a_package_is_required_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_extra_of", lambda name, extra: [f"no-such-{name}-{extra}"])
    assert "flower: pip install 'flwr[simulation]'" in finding("extras").text


def test_installation_without_metadata_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    for name in ("version", "requires", "metadata"):
        monkeypatch.setattr(metadata, name, missing)
    assert "not installed" in finding("fedmem").text
    assert "unknown" in finding("extras").text


def test_broken_torch_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def fail() -> int:
        raise RuntimeError("driver too old\nmore")

    monkeypatch.setattr(torch.cuda, "device_count", fail)
    assert finding("devices").problems == ("torch does not work: driver too old; install torch again",)


def test_missing_scenarios_are_a_problem(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmem.shipped.files.folder", lambda: own_folders)
    assert "install fedmem again" in finding("fedmem").problems[0]


def test_missing_family_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding("fedmem").problems == ()
    monkeypatch.setitem(families.FAMILIES, "strategy", "fedmem.nowhere")
    assert finding("fedmem").problems == ("the folder of fedmem.nowhere is missing; install fedmem again",)


def test_threads_and_cores_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "OMP_NUM_THREADS=3" in finding("cores").text
    assert f"of {os.cpu_count()} usable" in finding("cores").text
