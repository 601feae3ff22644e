"""Makes the source of the documentation site: pages of the repository, and reference pages from code.

`python docs/stage.py FOLDER` writes that source; `make site` builds it with Sphinx. Nothing in FOLDER is committed.
Pages are copied with links that lead to their new places. Links to files that are no pages become plain text.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOVED = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/results.md": "benchmarks.md",
}
"""Pages outside `docs/` and their places in the site; experiments go to `findings/`."""

CONTENTS = {"jobs/README.md": "[0-9]*", "decisions/README.md": "[0-9]*", "findings.md": "findings/*/*"}
"""Pages of the site that lead to all pages of a pattern."""

NOTEBOOKS = """# Notebooks

The [twelve jobs](jobs/README.md) as notebooks. `make notebooks` writes them to `build/notebooks` and runs them.

```{toctree}
:glob:

notebooks/*
```
"""

IMAGES = (".png", ".svg", ".gif")
_CODE = re.compile(r"^```.*?^```|(?<!\[)`[^`\n]*`(?!\])", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def places() -> dict[str, str]:
    """Each page and image of the repository that is part of the site: its path there, and in the site."""
    inside = {
        path.relative_to(ROOT).as_posix(): path.relative_to(ROOT / "docs").as_posix()
        for path in sorted((ROOT / "docs").rglob("*"))
        if path.suffix in (".md", *IMAGES)
    }
    experiments = {
        path.relative_to(ROOT).as_posix(): "findings/" + path.relative_to(ROOT / "experiments").as_posix()
        for path in sorted((ROOT / "experiments").glob("*/*"))
        if path.suffix in (".md", *IMAGES)
    }
    return {**inside, **experiments, **{name: place for name, place in MOVED.items() if (ROOT / name).exists()}}


def relink(text: str, name: str, site: dict[str, str]) -> str:
    """The text of the page `name` with links that lead to places in the site.

    >>> site = {"docs/a.md": "a.md", "README.md": "r.md"}
    >>> relink("[a](../README.md#x), [b](../Makefile), `[c](d)`", "docs/a.md", site)
    '[a](r.md#x), b, `[c](d)`'
    """

    def new_link(match: re.Match[str]) -> str:
        sign, words, address = match.groups()
        path, hash_sign, anchor = address.partition("#")
        if not path or re.match(r"[a-z]+:", address):
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
        if target not in site and f"{target}/README.md" in site:
            target = f"{target}/README.md"
        if target not in site:
            return str(words)
        new = posixpath.relpath(site[target], posixpath.dirname(site[name]) or ".")
        return f"{sign}[{words}]({new}{hash_sign}{anchor})"

    # code stays as it is; a link whose words are code is none
    set_aside: list[str] = []

    def set_code_aside(match: re.Match[str]) -> str:
        set_aside.append(match[0])
        return f"\0{len(set_aside) - 1}\0"

    linked = _LINK.sub(new_link, _CODE.sub(set_code_aside, text))
    return re.sub(r"\0(\d+)\0", lambda match: set_aside[int(match[1])], linked)


def markdown_of_docstring(text: str) -> str:
    """A docstring as Markdown: sections in bold, entries as lists, examples and tables as code.

    >>> print(markdown_of_docstring("Sum a < b.\\n\\nFields:\\n    a: first."))
    Sum a &lt; b.
    <BLANKLINE>
    **Fields**
    <BLANKLINE>
    - `a`: first.
    """
    paragraphs = []
    for paragraph in re.split(r"\n[ \t]*\n", text.strip("\n")):
        lines = paragraph.split("\n")
        head = re.fullmatch(r"(\w[\w ]*):", lines[0])
        if head and len(lines) > 1 and lines[1].startswith("    "):
            paragraphs.append(f"**{head[1]}**")
            lines = [line[4:] if line.startswith("    ") else line for line in lines[1:]]
            depth = ""
        else:
            depth = " " * (len(lines[0]) - len(lines[0].lstrip()))
        lines = [line.removeprefix(depth) for line in lines]
        if lines[0].startswith(">>>") or any(re.match(r"[=-]{3,}", line) for line in lines):
            paragraphs.append("```python\n" + "\n".join(lines) + "\n```")
        elif re.match(r"\w+: ", lines[0]) and head:
            paragraphs.append("\n".join(re.sub(r"^(\*{0,2}\w+): ", r"- `\1`: ", escape(line)) for line in lines))
        else:
            paragraphs.append("\n".join(escape(line) for line in lines))
    return "\n\n".join(paragraphs)


def escape(line: str) -> str:
    """A line whose signs mean nothing in Markdown, code apart."""
    parts = re.split(r"(`[^`]*`)", line)
    for index in range(0, len(parts), 2):
        plain = re.sub(r"(?<![*\w])\*(\w[\w ]*)\*(?![*\w])", r"\0\1\0", parts[index])  # emphasis
        plain = re.sub(r"([*_\[\]|$#~])", r"\\\1", plain).replace("\0", "*")
        parts[index] = plain.replace("&", "&amp;").replace("<", "&lt;")
    return "".join(parts)


def cell(text: str) -> str:
    """A text as one cell of a table."""
    return escape(" ".join(text.split())).replace("\\|", "|").replace("|", "\\|")


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown; cells are Markdown already."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """A text as code in a cell; empty where there is none."""
    return "`" + text.replace("|", "\\|") + "`" if text else ""


def stage_notebooks(folder: Path, site: dict[str, str], executed: Path) -> None:
    """A notebook of each job: with its outputs if it lies in `executed` and has the cells of the page, else without."""
    import nbformat
    from notebooks import notebook, pages

    folder.mkdir()
    for name, page in pages().items():
        book = notebook(name, page.read_text("utf-8"))
        if (executed / f"{name}.ipynb").exists():
            run = nbformat.read(executed / f"{name}.ipynb", as_version=4)
            if [cell.source for cell in run.cells] == [cell.source for cell in book.cells]:
                book = run
        path = f"docs/jobs/{name}.md"
        for cell in book.cells:
            if cell.cell_type == "markdown":
                cell.source = relink(cell.source, path, site | {path: f"notebooks/{name}.ipynb"})
        nbformat.write(book, folder / f"{name}.ipynb")


def component_pages() -> Iterator[tuple[str, str]]:
    """A page for each family: each kind with its text, its fields and YAML to paste."""
    import yaml

    from fedmem.contracts.families import FAMILIES
    from fedmem.scenario import catalogue, describe

    for family in FAMILIES:
        line = f"Each heading is a `kind`. `fedmem show {family} KIND` says the same."
        parts = [f"# {family.capitalize()} components", line]
        for kind in catalogue.kinds(family):
            # the table below has the fields
            text = re.sub(
                r"^Fields:?\n(\n(?=- )|(?=    ))(.+\n?)+",
                "",
                describe.text_of(catalogue.load(family, kind)),
                flags=re.M,
            )
            parts += [f"## {kind}", escape(describe.summary(family, kind)), markdown_of_docstring(text)]
            rows = []
            for fact in describe.field_facts(family, kind):
                default = code(fact.default) or "required"
                rows.append((code(fact.name), cell(fact.type), default, cell(fact.allowed), cell(fact.meaning)))
            if rows:
                parts.append(table(("field", "type", "default", "allowed", "meaning"), rows))
            example = describe.place_of(family, kind)
            text = yaml.safe_dump(example, sort_keys=False, default_flow_style=None, width=100)
            parts.append(f"```yaml\n{text}```")
        yield f"reference/components/{family}.md", "\n\n".join(parts) + "\n"


def measures_page() -> str:
    """What each measure of the shipped estimators and probes means, and what it does not mean."""
    from fedmem.reporting.measures import shipped_measures

    parts = [
        "# All measures",
        "Each measure is a value of `metric` in `measurements.parquet`. Its component declares this text. "
        "[What each measure means](../measures.md) explains the most important ones.",
    ]
    for name, measure in sorted(shipped_measures().items()):
        facts = [
            ("unit", measure.unit),
            ("range", f"{measure.range[0]:g} to {measure.range[1]:g}"),
            ("without memorisation", "" if measure.null != measure.null else f"{measure.null:g}"),
            ("direction", measure.direction),
        ]
        parts += [f"## {name}", f"**{escape(measure.title)}.** {escape(measure.means)}"]
        if measure.is_not:
            parts.append(f"It is not: {escape(measure.is_not)}")
        parts.append("\n".join(f"- {title}: {escape(text)}" for title, text in facts if text))
    return "\n\n".join(parts) + "\n"


def yaml_page() -> str:
    """Each key of a scenario, from the schema that editors use."""
    from fedmem.contracts.families import FAMILIES
    from fedmem.scenario.json_schema import scenario_schema
    from fedmem.scenario.yaml_source import write_flow

    schema = scenario_schema()

    def rows(properties: dict[str, dict], prefix: str) -> Iterator[tuple[str, ...]]:  # type: ignore[type-arg]
        for name, item in properties.items():
            default = write_flow(item["default"]) if "default" in item else ""
            required = "required" if not prefix and name in schema["then"]["required"] else ""
            yield code(prefix + name), code(default) or required, allowed(item), cell(item.get("description", ""))
            yield from rows(item.get("properties", {}) or of_section(item), f"{prefix}{name}.")

    def of_section(item: dict) -> dict:  # type: ignore[type-arg]
        """The keys of a section that may be left out, which stands among the definitions."""
        names = [part["$ref"].rsplit("/", 1)[1] for part in item.get("anyOf", []) if "$ref" in part]
        sections = [schema["$defs"][name] for name in names if name.split(".")[0] not in FAMILIES]
        return dict(sections[0]["properties"]) if sections else {}

    def allowed(item: dict) -> str:  # type: ignore[type-arg]
        if "$ref" in item:
            family = item["$ref"].rsplit("/", 1)[1].split(".")[0]
            if family not in FAMILIES:
                return "mapping"
            return f"[{family} component](components/{family}.md)"
        if "anyOf" in item:
            return " or ".join(filter(None, (allowed(part) for part in item["anyOf"])))
        if item.get("type") == "array":
            return f"list of {allowed(item.get('items', {}))}"
        if "enum" in item:
            return ", ".join(code(str(value)) for value in item["enum"])
        if "const" in item:
            return code(str(item["const"]))
        bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
        limits = ", ".join(f"{sign} {item[key]:g}" for key, sign in bounds.items() if key in item)
        return " ".join(filter(None, (str(item.get("type", "")), limits))).replace("<", "&lt;")

    lines = list(rows(schema["properties"], ""))
    return "\n\n".join(
        [
            "# Keys of a scenario",
            "By default, the name is the stem of the file. `fedmem schema` prints the same as a JSON Schema.",
            table(("key", "default", "allowed", "meaning"), lines) + "\n",
        ]
    )


def command_line_page() -> str:
    """Each command with its help, arguments and options."""
    import typer

    from fedmem.cli.main import app

    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="fedmem")
    parts = ["# Command line", "`fedmem COMMAND --help` says the same. [Commands](../commands.md) has the overview."]
    for name in group.list_commands(context):  # type: ignore[attr-defined]
        command = group.get_command(context, name)  # type: ignore[attr-defined]
        if command.hidden:
            continue
        inner = typer.Context(command, info_name=name, parent=context)
        usage = f"fedmem {name} {' '.join(command.collect_usage_pieces(inner))}"
        text = markdown_of_docstring((command.help or "").replace("\b", ""))
        parts += [f"## fedmem {name}", f"```text\n{usage}\n```", text]
        rows = []
        for parameter in command.get_params(inner):
            title, meaning = parameter.get_help_record(inner) or ("", "")
            if title:
                rows.append((code(title), cell(meaning)))
        parts.append(table(("argument or option", "meaning"), rows))
    return "\n\n".join(parts) + "\n"


def python_page() -> str:
    """The names of `fedmem.__all__`, which Sphinx documents."""
    import inspect

    import fedmem

    parts = ["# Python API", "`import fedmem` costs little: each name is imported when it is first used."]
    for name in fedmem.__all__:
        if not name.startswith("_"):
            value = getattr(fedmem, name)
            kind = "autoclass" if inspect.isclass(value) else "autofunction"
            members = "   :members:\n" if kind == "autoclass" else ""
            parts.append(f"## {name}\n\n```{{eval-rst}}\n.. {kind}:: fedmem.{name}\n{members}```")
    return "\n\n".join(parts) + "\n"


def stage(folder: Path) -> None:
    """Writes the source of the site into a folder, in place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    site = places()
    for name, place in site.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".md":
            target.write_text(relink((ROOT / name).read_text("utf-8"), name, site), encoding="utf-8")
        else:
            shutil.copy(ROOT / name, target)
    readme = (folder / MOVED["README.md"]).read_text("utf-8")
    index = folder / "index.md"
    index.write_text(index.read_text("utf-8").replace("<!-- README -->", readme.partition("\n## Read on")[0]), "utf-8")
    (folder / MOVED["README.md"]).unlink()
    for place, pattern in CONTENTS.items():
        page = folder / place
        contents = f"\n```{{toctree}}\n:hidden:\n:glob:\n\n{pattern}\n```\n"
        page.write_text(page.read_text("utf-8") + contents, encoding="utf-8")
    stage_notebooks(folder / "notebooks", site, ROOT / "build" / "notebooks")
    generated = {
        **dict(component_pages()),
        "notebooks.md": NOTEBOOKS,
        "reference/measures.md": measures_page(),
        "reference/scenario.md": yaml_page(),
        "reference/command-line.md": command_line_page(),
        "reference/python.md": python_page(),
    }
    for place, text in generated.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    stage(Path(sys.argv[1]))
