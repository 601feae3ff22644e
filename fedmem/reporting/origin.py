"""Where the numbers of a run come from, in two or three lines for the head of its table and its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedmem.results.folder import finish_time
from fedmem.results.read import Run

PARTS = {
    "data": "dataset",
    "partition": "partition",
    "model": "model",
    "client": "client",
    "strategy": "strategy",
    "sampler": "sampler",
}
"""The name of each part in the line, and its field in the scenario."""

_PACKAGES = ("torch", "flwr")
"""The packages whose versions are on the first screen; all others are in the manifest."""


def origin(run: Run) -> tuple[str, ...]:
    """The components and seed of a run, what of its model is trained, its time, and its versions and commit of fedmem.

    The parameters are counted only where some are frozen or stay with clients.

    The commit is that of the checkout of fedmem, not that of the user's own repository. The manifest holds the hashes
    of the user's components and modules that were used. A `+` says that files differ from the commit.
    """
    scenario, manifest = run.scenario, run.manifest
    parts = [f"{name} {text}" for name, field in PARTS.items() if (text := component_text(scenario.get(field)))]
    seed = scenario.get("seed", manifest.get("seed"))
    parts += [] if seed is None else [f"seed {seed}"]
    model = parameters_text(manifest.get("parameters") or {})
    return "; ".join(parts), *([model] if model else []), "; ".join(_circumstances(run, manifest))


def parameters_text(counts: Mapping[str, int]) -> str:
    """The counts of `count_parameters`; empty without any.

    >>> parameters_text({"trained": 1000, "frozen": 0, "by_norm": 20, "by_client": 0})
    'Parameters: 1,000 trained / 0 frozen / 20 stay with clients (norm: local)'
    """
    if not counts:
        return ""
    local = {"norm: local": counts["by_norm"], "client": counts["by_client"]}
    texts = [f"{count:,} stay with clients ({reason})" for reason, count in local.items() if count]
    return f"Parameters: {counts['trained']:,} trained / {counts['frozen']:,} frozen / " + (
        " / ".join(texts) or "0 stay with clients"
    )


def component_text(component: Any) -> str:
    """The kind of a component, with the file that it reads; empty where there is none.

    >>> component_text({"kind": "npz", "path": "data/mine.npz"}), component_text({"kind": "mlp", "hidden": [8]})
    ('npz mine.npz', 'mlp')
    """
    if not isinstance(component, Mapping) or "kind" not in component:
        return ""
    path = component.get("path")
    return f"{component['kind']} {Path(path).name}" if isinstance(path, str) else str(component["kind"])


def _circumstances(run: Run, manifest: Mapping[str, Any]) -> Iterator[str]:
    yield f"id {run.id}"
    yield f"finished {finished_at(run)}"
    versions = manifest.get("versions") or {}
    commit = manifest.get("commit")
    of_commit = f" (commit of fedmem: {commit[:12]}{'+' * commit.endswith('+')})" if commit else ""
    yield f"fedmem {versions.get('fedmem', 'unknown')}{of_commit}"
    yield from (f"{package} {versions[package]}" for package in _PACKAGES if package in versions)


def finished_at(run: Run) -> str:
    """When the run finished, in universal time, from its manifest; of older folders from the time of that file."""
    text = run.manifest.get("finished")
    when = datetime.fromisoformat(text) if text else datetime.fromtimestamp((finish_time(run.path) or 0) / 1e9, UTC)
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
