"""Panels of a figure as inline SVG for pages: text as text, colours as variables of the page, no style attributes.

A page's content security policy refuses style attributes, so each property becomes a presentation attribute. Colours of
the palette become `var(--name)`, which the page sets for light, dark and print. Equal figures give equal text.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from fedmem.reporting.drawing import PALETTE, Drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.path import Path
    from matplotlib.transforms import Bbox

_PAD, _PANEL, _CANVAS = 0.04, 2.9, 6.0
"""Inches around a panel, the width of its axes, and the side of the figure that it is drawn in."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel: its title, and SVG that needs no escaping."""

    title: str
    svg: str


@dataclass(frozen=True, kw_only=True)
class Key:
    """An entry of the legend: its label, and a swatch as SVG that needs no escaping."""

    label: str
    swatch: str


def panels(drawing: Drawing, name: str) -> list[Panel]:
    """The panels of a figure, all of one size; `name` tells the ids of its parts from those of other figures.

    The figure is changed: store its PNG first.
    """
    figure = drawing.figure
    titles = [str(axes.get_label()) or _unescape(axes.get_title(loc="left")) for axes in drawing.grid]
    for axes in drawing.grid:
        axes.set_title("", loc="left")
        axes.tick_params(labelleft=True, length=0, which="both")
        axes.patch.set_visible(False)
        if drawing.has_named_rows:
            axes.tick_params(labelleft=False)
        axes.set_ylabel(axes.get_ylabel() or drawing.grid[0].get_ylabel())
    for part in (figure.patch, *figure.texts, *figure.legends):
        part.set_visible(False)
    _resize(drawing)
    boxes = _boxes(drawing)
    result = []
    for number, (axes, title, box) in enumerate(zip(drawing.grid, titles, boxes, strict=True)):
        for other in figure.axes:
            other.set_visible(other is axes)
        label = _visible(": ".join(filter(None, (drawing.title, title))))
        result.append(Panel(title=title, svg=_inline(_svg(drawing, box), f"{name}-{number}", label)))
    return result


def keys(drawing: Drawing) -> list[Key]:
    """The legend of a figure: each label once, in the order of the panels."""
    handles: dict[str, Any] = {}
    for axes in drawing.grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    return [Key(label=_unescape(label), swatch=_swatch(handle)) for label, handle in handles.items()]


def _visible(text: str) -> str:
    """Text without what cannot be seen."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _unescape(text: str) -> str:
    """Text of matplotlib without its escapes."""
    return text.replace(r"\$", "$")


def _resize(drawing: Drawing) -> None:
    """Gives every panel the width that is read well on a phone, whatever it has in the whole figure."""
    sizes = [(axes.bbox.width, axes.bbox.height) for axes in drawing.grid]
    drawing.figure.set_size_inches(_CANVAS, _CANVAS)
    for axes, (width, height) in zip(drawing.grid, sizes, strict=True):
        tall = min(max(_PANEL * height / width, 0.62 * _PANEL), _PANEL)
        axes.set_position((1 / _CANVAS, 1 / _CANVAS, _PANEL / _CANVAS, tall / _CANVAS))


def _boxes(drawing: Drawing) -> list[Bbox]:
    """The places of the panels in inches, with the widest margins that any of them has."""
    from matplotlib.transforms import Bbox

    drawing.figure.draw_without_rendering()
    dpi = drawing.figure.dpi
    inner = [axes.get_window_extent() for axes in drawing.grid]
    outer = [_tight_box(axes) for axes in drawing.grid]
    pairs = list(zip(inner, outer, strict=True))
    left, bottom = (max(getattr(i, end) - getattr(o, end) for i, o in pairs) + _PAD * dpi for end in ("x0", "y0"))
    right, top = (max(getattr(o, end) - getattr(i, end) for i, o in pairs) + _PAD * dpi for end in ("x1", "y1"))
    return [
        Bbox.from_extents(i.x0 - left, i.y0 - bottom, i.x1 + right, i.y1 + top).transformed(_scale(1 / dpi))
        for i in inner
    ]


def _tight_box(axes: Axes) -> Any:
    return axes.get_tightbbox() or axes.get_window_extent()


def _scale(factor: float) -> Any:
    from matplotlib.transforms import Affine2D

    return Affine2D().scale(factor)


def _svg(drawing: Drawing, box: Bbox) -> str:
    """The SVG text that matplotlib writes for a part of the figure."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fedmem"}):
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        drawing.figure.savefig(buffer, format="svg", bbox_inches=box, metadata=metadata)
    return buffer.getvalue().decode()


_SPACE = re.compile(r"\{.*\}")
_NUMBER = re.compile(r"-?\d+\.\d+")
_VARIABLES = {light.lower(): f"var(--{name})" for name, (light, _) in PALETTE.items()}
_DROPPED = {"metadata", "style", "title"}
_COLOURS = {"white": "#ffffff", "black": "#000000"}


@dataclass(frozen=True, kw_only=True)
class _Node:
    """An element without namespaces."""

    tag: str
    attributes: dict[str, str]
    text: str
    children: Sequence[_Node]

    def __str__(self) -> str:
        shown = "".join(f' {key}="{html.escape(value)}"' for key, value in self.attributes.items())
        content = html.escape(self.text) + "".join(map(str, _group_alike(self.children)))
        return f"<{self.tag}{shown}>{content}</{self.tag}>" if content else f"<{self.tag}{shown}/>"

    @property
    def look(self) -> dict[str, str]:
        """The attributes that siblings may share."""
        return {key: value for key, value in self.attributes.items() if key not in _OWN_ATTRIBUTES}


_OWN_ATTRIBUTES = {"id", "href", "x", "y", "d", "transform", "text-anchor"}
_FEWEST_ALIKE = 3
"""Siblings in a row that look the same become a group, which says it once."""


def _group_alike(nodes: Sequence[_Node]) -> Iterator[_Node]:
    """The nodes in their order. Attributes that several in a row share are written once."""
    for (tag, look), run in groupby(nodes, key=lambda node: (node.tag, node.look)):
        alike = list(run)
        if tag == "g" and len(look) == len(alike[0].attributes):
            yield replace(alike[0], children=[child for node in alike for child in node.children])
        elif len(alike) < _FEWEST_ALIKE or not look or tag in ("g", "defs"):
            yield from alike
        else:
            bare = [
                replace(node, attributes={key: value for key, value in node.attributes.items() if key not in look})
                for node in alike
            ]
            yield _Node(tag="g", attributes=look, text="", children=bare)


def _inline(svg: str, name: str, label: str) -> str:
    """SVG of matplotlib as a part of a page, with a text for readers who do not see it."""
    root = ElementTree.fromstring(svg)
    references = {
        reference: f"{name}-{number}"
        for number, reference in enumerate(dict.fromkeys(re.findall(r'(?:url\(#|href="#)([\w-]+)', svg)))
    }
    nodes = [node for child in root for node in _nodes(child, references)]
    width, height = root.get("viewBox", "").split()[2:]
    box = f"0 0 {short_numbers(width)} {short_numbers(height)}"
    content = "".join(map(str, _group_alike(nodes)))
    return f'<svg class="plot" role="img" aria-label="{html.escape(label)}" viewBox="{box}">{content}</svg>'


def _nodes(element: ElementTree.Element, references: dict[str, str]) -> Iterator[_Node]:
    """An element, or the children of a group that says nothing."""
    tag = _SPACE.sub("", element.tag)
    if tag in _DROPPED:
        return
    attributes = dict(_attributes(element, references))
    text = (element.text or "").strip()
    children = [node for child in element for node in _nodes(child, references)]
    if tag in ("g", "defs") and not (children or text):
        return
    if tag == "g" and not attributes:
        yield from children
    else:
        yield _Node(tag=tag, attributes=attributes, text=text, children=children)


def _attributes(element: ElementTree.Element, references: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Attributes with short numbers; properties of a style as attributes of their own."""
    for key, value in element.items():
        key = _SPACE.sub("", key)
        if key == "style":
            yield from _properties(value)
        elif key == "id":
            if value in references:
                yield key, references[value]
        elif key == "href":
            yield key, f"#{references[value[1:]]}"
        elif key == "clip-path":
            yield key, f"url(#{references[value[5:-1]]})"
        elif not value.startswith("rotate(-0 "):
            yield key, short_numbers(value)


def _properties(style: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, map(str.strip, style.split(";"))):
        name, _, value = (piece.strip() for piece in part.partition(":"))
        if name == "font":
            size = re.search(r"([\d.]+)px", value)
            if size:
                yield "font-size", size[1]
        elif name == "font-size":
            yield name, value.removesuffix("px")
        elif name in ("font-weight", "text-anchor", "stroke-dasharray", "stroke-dashoffset") or not name.startswith(
            ("font", "text")
        ):
            value = _COLOURS.get(value, value)
            yield name, _VARIABLES.get(value.lower(), short_numbers(value))


def short_numbers(text: str) -> str:
    """Numbers with at most two decimals, on one line.

    >>> short_numbers("M 1.23456 2.0 \\nL 3.10 4")
    'M 1.23 2 L 3.1 4'
    """
    return " ".join(_NUMBER.sub(lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), text).split())


_DASHES = {"--": "5 3", ":": "1.5 2.5", "-.": "5 2 1 2"}


def _swatch(handle: Any) -> str:
    """A small image of what the label stands for."""
    from matplotlib.colors import to_hex
    from matplotlib.container import Container
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    parts = []
    if isinstance(handle, Container):
        handle = handle[0]
    if isinstance(handle, Line2D):
        colour = _variable(to_hex(handle.get_color()))
        if handle.get_linestyle() not in ("None", ""):
            dashes = {
                "--": ' stroke-dasharray="5 3"',
                ":": ' stroke-dasharray="1.5 2.5"',
                "-.": ' stroke-dasharray="5 2 1 2"',
            }
            dash = dashes.get(str(handle.get_linestyle()), "")
            parts.append(f'<path d="M1 6H27" stroke="{colour}" stroke-width="2"{dash}/>')
        marker = str(handle.get_marker())
        if marker not in ("None", ""):
            fill = "none" if handle.get_fillstyle() == "none" else colour
            parts.append(f'<path d="{_marker(marker)}" fill="{fill}" stroke="{colour}" stroke-width="1"/>')
    elif isinstance(handle, Patch):
        colour = _variable(to_hex(handle.get_facecolor()))
        parts.append(f'<rect x="3" y="1" width="22" height="10" fill="{colour}" fill-opacity="0.3"/>')
    else:
        sizes: Sequence[float] = handle.get_sizes()
        radius = short_numbers(f"{min(float(sizes[0]) ** 0.5 / 2.4, 6.0):.3f}")
        parts.append(f'<circle cx="14" cy="6" r="{radius}" fill="var(--ink)" fill-opacity="0.55"/>')
    return f'<svg class="swatch" aria-hidden="true" viewBox="0 0 28 12" width="28" height="12">{"".join(parts)}</svg>'


def _variable(colour: str) -> str:
    return _VARIABLES.get(colour.lower(), colour)


def _marker(marker: str) -> str:
    """The outline of a marker, at the middle of a swatch."""
    from matplotlib.markers import MarkerStyle
    from matplotlib.transforms import Affine2D

    style = MarkerStyle(marker)
    return _outline(style.get_path().transformed(style.get_transform() + Affine2D().scale(7, -7).translate(14, 6)))


def _outline(path: Path) -> str:
    """A path as the text of SVG."""
    commands = {path.MOVETO: "M", path.LINETO: "L", path.CURVE3: "Q", path.CURVE4: "C", path.CLOSEPOLY: "Z"}
    parts = []
    for points, code in path.iter_segments(simplify=False):
        numbers = "" if code == path.CLOSEPOLY else short_numbers(" ".join(f"{float(value):.3f}" for value in points))
        parts.append(f"{commands[code]}{numbers}")
    return "".join(parts)
