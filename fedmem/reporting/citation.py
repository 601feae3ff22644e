"""How to cite a run: version, commit and id."""

from __future__ import annotations

from fedmem.reporting.origin import finished_at
from fedmem.results.read import Run


def citation(run: Run) -> str:
    """Text that says exactly what made the numbers of a run."""
    manifest = run.manifest
    version = (manifest.get("versions") or {}).get("fedmem", "unknown")
    commit = manifest.get("commit")
    return (
        f"fedmem, version {version}{f', commit {commit}' if commit else ''}. "
        f"Scenario {run.scenario.get('name', '')}, id {run.id}, finished {finished_at(run)}."
    )


def versions_text(run: Run) -> str:
    """The versions of all packages that the manifest names."""
    versions = run.manifest.get("versions") or {}
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()) if version)
