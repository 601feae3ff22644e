"""Secrets, and the texts that models write in their place, for the page of a run."""

from __future__ import annotations

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


WRITTEN_COLUMNS = (
    "", "kind", "owning client", "run", "secret", "written by the local model", "written by the global model",
)  # fmt: skip


def written_note(run: Run) -> str:
    """The contents of the table, in sentences."""
    total = len(written_rows(run))
    more = f" The first {_MAX_SHOWN} of {total} secrets." if total > _MAX_SHOWN else ""
    return (
        "The most probable text that a model writes after the beginning of the secret. It is that of the last observed "
        f"round of the first run that trains on the secret.{more} Equal texts are in bold."
    )


def written_cells(run: Run) -> list[list[str | tuple[str, bool]]]:
    """The rows for a page; texts are pairs of the text and whether it equals the secret."""
    return [
        [*map(escape_invisible, row[:4]), *((escape_invisible(text), text == row[4]) for text in row[4:])]
        for row in written_rows(run)[:_MAX_SHOWN]
    ]
