"""Secrets beside the texts that models write in their place, for the page of a run."""

from __future__ import annotations

import html
from collections.abc import Iterator

from fedmem.reporting.text_sheets import escape_invisible
from fedmem.results.read import Run
from fedmem.wording import client_text

_MAX_SHOWN = 20
"""Secrets that are shown: the first ones of the scenario, not the best ones."""


def written_rows(run: Run) -> list[tuple[str, ...]]:
    """Number, kind, owning client, run, secret, and what the local and the global model write in its place.

    Each secret in the first kept run that it is in, at the last observed round.
    """
    arrays = run.reconstructions()
    texts: dict[tuple[int, int], dict[str, str]] = {}
    secrets: dict[int, str] = {}
    for name in arrays:
        parts = name.split("/")
        if len(parts) != 6 or parts[1] != "written" or parts[5] != "subject":
            continue
        group, number = name.rpartition("/")[0], int(parts[3].removeprefix("run_"))
        columns = (arrays[f"{group}/{key}"].tolist() for key in ("subject", "secret", "written"))
        for subject, secret, text in zip(*columns, strict=True):
            secrets[subject] = secret
            texts.setdefault((subject, number), {})[parts[2]] = text
    rows = []
    audit = run.audit
    owners, kinds, coins = (audit[name].tolist() for name in ("owner", "kind", "is_in"))
    for subject in sorted(secrets):
        is_in = coins[subject]
        member = [number for number in range(len(is_in)) if is_in[number] and (subject, number) in texts]
        if member:
            levels = (texts[subject, member[0]].get(level, "") for level in ("local", "global"))
            owner = client_text(owners[subject], run.client_names)
            rows.append((f"#{subject}", kinds[subject], owner, str(member[0]), secrets[subject], *levels))
    return rows


def written_html(run: Run) -> Iterator[str]:
    """The table of written texts, if there are any; whatever comes from a file is escaped."""
    rows = written_rows(run)
    if not rows:
        return
    more = f" The first {_MAX_SHOWN} of {len(rows)} secrets." if len(rows) > _MAX_SHOWN else ""
    yield (
        "<h2>Extracted texts</h2><p>The most probable text that a model writes after the beginning of the secret, at "
        f"the last observed round of the first run that trains on the secret.{more} Equal texts are in bold.</p>"
    )
    columns = (
        "",
        "kind",
        "owning client",
        "run",
        "secret",
        "written by the local model",
        "written by the global model",
    )
    yield "<table>" + "<tr>" + "".join(f"<th>{column}</th>" for column in columns) + "</tr>"
    for row in rows[:_MAX_SHOWN]:
        cells = [f"<td>{html.escape(escape_invisible(cell))}</td>" for cell in row[:4]]
        for text in row[4:]:
            code = f"<code>{html.escape(escape_invisible(text))}</code>"
            cells.append(f"<td>{f'<b>{code}</b>' if text == row[4] else code}</td>")
        yield "<tr>" + "".join(cells) + "</tr>"
    yield "</table>"
