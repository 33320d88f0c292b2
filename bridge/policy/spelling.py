"""What somebody most likely meant by a word we do not know.

Used wherever an operator may mistype a name: keys, sinks, fields of templates.
Case does not count, because nobody's second guess should be about capitals.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["did_you_mean"]

_LENGTH_MAX = 64  # comparing is quadratic, and no name of ours is that long


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known word, or nothing when none is close."""
    if len(word) > _LENGTH_MAX:
        return ""
    by_folded = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), by_folded, n=1, cutoff=0.6)
    return f"; did you mean {by_folded[close[0]]!r}?" if close else ""
