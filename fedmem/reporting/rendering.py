"""Pages from templates: one set for runs, comparisons, sweeps and attacks. A page is one file that loads nothing.

Whatever a template prints is escaped, and what cannot be seen is written as an escape. The content security policy of a
page allows its own style, its own script and images in data URIs, and nothing else. Equal values give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.reporting.cells import Section
from fedmem.reporting.drawing import PALETTE, Drawing
from fedmem.reporting.svg import Key, Panel, keys, panels

if TYPE_CHECKING:
    from jinja2 import Environment


_TEMPLATES = Path(__file__).parent / "templates"

_WITHOUT_TEMPLATES = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>fedmem</title></head><body>
<p>This folder was written by a Flower bundle, which cannot hold the templates of reports. All numbers are here.
Run <code>fedmem report FOLDER</code> with an installed fedmem to draw the report.</p></body></html>
"""


@dataclass(frozen=True, kw_only=True)
class PageFigure:
    """A figure of a page: panels side by side, or below each other where the page is narrow.

    Attributes:
        name: name of its file in the folder, without the ending.
        caption: what it shows.
        legend: its entries.
        panels: at least one.
    """

    name: str
    caption: str
    legend: Sequence[Key]
    panels: Sequence[Panel]


def page_figure(name: str, drawing: Drawing, caption: str) -> PageFigure:
    """A figure for a page. The drawing is changed: store its PNG first."""
    return PageFigure(name=name, caption=caption, legend=keys(drawing), panels=panels(drawing, name))


def render(template: str, **values: Any) -> bytes:
    """A page from a template of `fedmem/reporting/templates` and the values that it prints.

    Flower bundles hold no templates, since Flower admits no such files. There, the page says how to draw the report.
    """
    if not _TEMPLATES.is_dir():
        return _WITHOUT_TEMPLATES
    environment = _environment()
    style, script = _style(), _script()
    from markupsafe import Markup

    page = environment.get_template(template).render(
        style=Markup(style),
        script=Markup(script),
        policy=Markup(content_policy()),
        **values,
    )
    return page.encode()


@cache
def content_policy() -> str:
    """The content security policy of every page: its own style, its own script and images in data URIs alone."""
    return (
        f"default-src 'none'; style-src '{_hash(_style())}'; script-src '{_hash(_script())}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )


def _style() -> str:
    return _clean_source("style.css", palette=PALETTE)


def _script() -> str:
    return _clean_source("script.js")


def data_uri(image: bytes) -> str:
    """A PNG as an address that needs no network."""
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def is_empty(section: Section) -> bool:
    """Whether a section has no row."""
    return not any(rows for _, rows in section.blocks)


def show(value: object) -> object:
    """Text as a page prints it: what cannot be seen, such as NUL or marks of direction, is written as an escape.

    >>> show("a\\x00\\u202eb\\nc")
    'a\\\\x00\\\\u202eb\\nc'
    """
    if type(value) is not str or value.isprintable():
        return value
    return "".join(
        character if character.isprintable() or character == "\n" else character.encode("unicode_escape").decode()
        for character in value
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fedmem.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=show,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["slug"] = slug
    environment.filters["heading"] = heading
    return environment


def heading(title: str) -> str:
    """A title as a heading: with a capital, and without capitals alone; names such as LiRA stay as they are.

    >>> heading("LOCAL AND GLOBAL"), heading("LiRA AUC"), heading("exposure")
    ('Local and global', 'LiRA AUC', 'Exposure')
    """
    return title.capitalize() if title.isupper() else f"{title[:1].upper()}{title[1:]}"


def slug(title: str) -> str:
    """A title as the target of a link.

    >>> slug("Local and global")
    'local-and-global'
    """
    text = "".join(character if character.isascii() and character.isalnum() else "-" for character in title.lower())
    return "-".join(filter(None, text.split("-")))


def _clean_source(name: str, **values: Any) -> str:
    """A file of style or script, without the indentation of its lines."""
    text = _environment().get_template(name).render(**values)
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def _hash(text: str) -> str:
    """The name of an inline style or script in a content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
