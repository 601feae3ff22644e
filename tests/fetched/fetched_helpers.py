"""What tests of published share."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from fedmem.cli.main import app


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def packed(path: Path, **files: bytes) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            archive.addfile(item, io.BytesIO(content))
    return path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["fetch", *arguments])
