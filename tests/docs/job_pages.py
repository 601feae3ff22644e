"""Pages of `docs/jobs`: the files that a reader writes and the commands that a reader types, in their order.

A line that holds only a file name in backticks names the file that the next fenced block holds. A block `console`
holds commands after `$ `, each followed by lines of its output. `# exit code 2` ends a command that is meant to fail.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "jobs"
BLOCK = re.compile(r"(?:^`(?P<file>[\w./-]+)`\n\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that the page tells its reader to write."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of the page, the lines of output that the page shows, and the exit code that it names."""

    text: str
    shown: tuple[str, ...]
    exit_code: int


def steps(page: str) -> Iterator[File | Command]:
    """What a reader does, in the order of the page."""
    for block in BLOCK.finditer(page):
        if block["language"] == "console":
            for part in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
                text, *shown = part.splitlines()
                code = re.search(r"# exit code (\d+)$", text)
                lines = tuple(line for line in shown if line.strip(" …"))
                yield Command(text=text, shown=lines, exit_code=int(code[1]) if code else 0)
        else:
            assert block["file"], f"a block of {block['language']} belongs to no file: {block['text'][:60]}"
            yield File(name=block["file"], text=block["text"])


def without_numbers(text: str) -> str:
    """Numbers as `#` and runs of white space as one space.

    >>> without_numbers("typical   20  −0.031 [−0.126, 0.064] p 0.04, 1,210 rows")
    'typical # # [#, #] p #, # rows'
    """
    return " ".join(re.sub(r"(?:[<≤] )?[<≈−-]*\d+(?:[.,]\d+)*(?:e-\d+)?", "#", text).split())


def first_missing(shown: tuple[str, ...], output: str) -> str | None:
    """The first line of a page that the output lacks, in this order; `…` stands for any text, numbers may differ."""
    rest = [without_numbers(line) for line in output.splitlines()]
    for line in shown:
        pattern = re.compile(".*".join(re.escape(part) for part in re.split(r"\s*…\s*", without_numbers(line))))
        place = next((i for i, candidate in enumerate(rest) if pattern.fullmatch(candidate)), None)
        if place is None:
            return line
        rest = rest[place + 1 :]
    return None


def environment() -> Mapping[str, str]:
    """That of a reader who has activated the environment in which fedmem is installed."""
    keep = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")}
    return keep | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}


def execute(command: Command, folder: Path) -> str:
    """The output of a command in the folder, after its exit code and the lines of the page were compared."""
    done = subprocess.run(
        ["bash", "-c", command.text],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == command.exit_code, f"{command.text}\n{done.stdout}"
    assert "Traceback" not in done.stdout, f"{command.text}\n{done.stdout}"
    missing = first_missing(command.shown, done.stdout)
    assert missing is None, f"{command.text}\ndoes not print\n{missing}\nbut\n{done.stdout}"
    return done.stdout


def follow(page: Path, folder: Path) -> dict[str, str]:
    """The outputs by command, after every file was written and every command run in the folder."""
    outputs = {}
    for step in steps(page.read_text(encoding="utf-8")):
        if isinstance(step, File):
            (folder / step.name).parent.mkdir(parents=True, exist_ok=True)
            (folder / step.name).write_text(step.text, encoding="utf-8")
        else:
            outputs[step.text] = execute(step, folder)
    return outputs
