"""Sphinx builds the site from what `stage.py` makes; `make site` runs both. No network is used."""

from fedmem.reporting.drawing import PALETTE

project = "fedmem"
author = "The fedmem developers"
copyright = "The fedmem developers"  # noqa: A001
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "fedmem"
# the colours of local and global models in figures: links, and links that were followed
_COLOURS = [
    {
        "color-brand-primary": PALETTE["local"][scheme],
        "color-brand-content": PALETTE["local"][scheme],
        "color-brand-visited": PALETTE["global"][scheme],
    }
    for scheme in (0, 1)
]
html_theme_options = {"light_css_variables": _COLOURS[0], "dark_css_variables": _COLOURS[1]}
html_static_path: list[str] = []
html_copy_source = False
html_show_sourcelink = False

myst_heading_anchors = 4
nb_execution_mode = "off"
nb_merge_streams = True
# a cell of a notebook may hold YAML or a command
suppress_warnings = ["misc.highlighting_failure"]
# a block `console` has commands and their output, `text` what is shown on a screen
highlight_language = "text"

# every reference of a page or docstring must have a target, except types in signatures: those of other packages, whose
# inventories need a network, and records of fedmem that have no page
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r"(collections|fedmem|flwr|nn|numpy|pandas|pathlib|pd|torch)\..+"),
    ("py:class", r"[A-Z]\w+"),
]

default_role = "literal"
napoleon_custom_sections = [("Fields", "params_style")]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
add_module_names = False
