"""The contract of every family of components, on one screen.

A component is a frozen, keyword-only dataclass in a file named after its kind; its fields are its YAML fields.
A field whose type is one of these protocols takes a nested component. Nothing here is imported to register anything.
"""

from __future__ import annotations
