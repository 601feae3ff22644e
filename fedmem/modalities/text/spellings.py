"""Members of a template that stand in texts in another spelling: other case, spaces, or signs between the places."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from fedmem.modalities.text.secret_space import Candidates
from fedmem.modalities.text.vocabulary import Vocabulary

_GAP = r"[\s\-./]*"
"""The signs that people write between the digits of a number."""
_EDGES = re.compile(r"\w")


def other_spellings(space: Candidates, texts: Sequence[str], vocabulary: Vocabulary) -> Counter[str]:
    """How often the texts hold a member in a spelling that is none of the template, by the spelling of its fixed text.

    Case is ignored, white space may be longer or shorter, and the places of the template may have spaces, dots, dashes
    or slashes between them. In the spelling, each letter and digit of a place is written `*`, so that no secret is
    shown. An exact member does not count, nor does one that goes on, such as a longer number.

    >>> vocabulary = Vocabulary.learn("characters", [])
    >>> digits = tuple(tuple(vocabulary.encode(digit).tolist()) for digit in "0123456789")
    >>> pins = Candidates(prefix=tuple(vocabulary.encode("my PIN is ").tolist()), positions=(digits, digits))
    >>> sorted(other_spellings(pins, ["my PIN is 12", "My pin is  34!", "my PIN is 5 6", "my pin is 123"], vocabulary))
    ['My pin is  **', 'my PIN is * *']
    """
    prefix = vocabulary.decode(list(space.prefix))
    if not _EDGES.search(prefix):
        return Counter()  # without a word in its fixed text, a template is too much like other texts
    options = [[vocabulary.decode(list(option)) for option in position] for position in space.positions]
    groups = [_group(position) for position in options]
    last = next((group for group, position in zip(groups[::-1], options[::-1], strict=True) if len(position) > 1), "")
    goes_on = rf"(?!{last})" if last else ""
    loose = re.compile(rf"(?<!\w)({_loose_text(prefix)}\s*)({_GAP.join(groups)}){goes_on}", re.IGNORECASE)
    exact = re.compile((" " if vocabulary.kind == "words" else "").join([re.escape(prefix), *groups]))
    counts: Counter[str] = Counter()
    for text in texts:
        for match in loose.finditer(text):
            if not exact.fullmatch(match[0]):
                counts[match[1] + re.sub(r"\w", "*", match[2])] += 1
    return counts


def _group(options: Sequence[str]) -> str:
    """A pattern of one place, longer options first."""
    return (
        f"(?:{'|'.join(_loose_text(option) for option in sorted(options, key=lambda option: (-len(option), option)))})"
    )


def _loose_text(text: str) -> str:
    """A pattern of fixed text, in which white space may have any length."""
    parts = [re.escape(part) for part in text.split()]
    inner = r"\s+".join(parts)
    return (r"\s*" if text[:1].isspace() else "") + inner + (r"\s*" if text[-1:].isspace() and inner else "")
