"""Makes a notebook of each page of `docs/jobs`, and runs it.

`python docs/notebooks.py FOLDER [NAME…]` writes and runs the notebooks of these pages, or of all. Each runs in an empty
folder of its own. A command with another exit code than its page says ends the notebook. `make notebooks` does so.
Without this step, the site has the notebooks without outputs.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

JOBS = Path(__file__).resolve().parent / "jobs"
_BLOCK = re.compile(
    r"(?:^`(?P<file>[\w./-]+)`\n\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```\n", re.MULTILINE | re.DOTALL
)


def pages() -> dict[str, Path]:
    """Name -> page of each job."""
    return {path.stem: path for path in sorted(JOBS.glob("[0-9]*.md"))}


def cells(page: str) -> Iterator[tuple[str, str]]:
    """The cells of a page: `markdown` for its words, `code` for each of its files and commands.

    >>> page = "# A\\n\\n`a.py`\\n\\n```python\\nprint(1)\\n```\\n\\n```console\\n$ python a.py  # exit code 2\\n```\\n"
    >>> list(cells(page))
    [('markdown', '# A'), ('code', '%%writefile a.py\\nprint(1)'), ('code', '%%bash\\npython a.py\\ntest $? = 2')]
    """
    end = 0
    for block in _BLOCK.finditer(page):
        if words := page[end : block.start()].strip():
            yield "markdown", words
        end = block.end()
        if block["language"] != "console":
            folder = os.path.dirname(block["file"])
            if folder:
                yield "code", f"%mkdir -p {folder}"
            yield "code", f"%%writefile {block['file']}\n{block['text'].rstrip()}"
            continue
        for command in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
            line, _, code = command.splitlines()[0].partition("  # exit code ")
            yield "code", "\n".join(["%%bash", line, *([f"test $? = {code}"] if code else [])])
            if run := re.match(r"fedmem run (\w+)\.yaml", line):
                yield (
                    "code",
                    f'import fedmem, pathlib\n\nfedmem.read(next(pathlib.Path("runs/{run[1]}").glob("[!.]*")))',
                )
    if words := page[end:].strip():
        yield "markdown", words


def notebook(name: str, page: str) -> Any:
    """The page as a notebook without outputs; the same page gives the same bytes."""
    import nbformat

    new = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    book = nbformat.v4.new_notebook(cells=[new[kind](text) for kind, text in cells(page)])
    for number, cell in enumerate(book.cells):
        cell["id"] = f"{name}-{number}"
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return book


def execute(book: Any, folder: Path) -> Any:
    """The notebook with its outputs, after all cells have run in the folder."""
    from nbclient import NotebookClient

    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["NO_COLOR"] = "1"  # colours of a terminal are too light for a page
    resources = {"metadata": {"path": str(folder)}}
    return NotebookClient(
        book, timeout=1200, kernel_name="python3", coalesce_streams=True, resources=resources
    ).execute()


def main(folder: Path, names: list[str]) -> None:
    """Writes and runs notebooks; a name that no page has is an error."""
    import nbformat

    known = pages()
    if unknown := sorted(set(names) - set(known)):
        sys.exit(f"no page of docs/jobs is called {', '.join(unknown)}; there are {', '.join(known)}")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or known:
        with tempfile.TemporaryDirectory() as empty:
            book = execute(notebook(name, known[name].read_text("utf-8")), Path(empty))
        nbformat.write(book, folder / f"{name}.ipynb")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
