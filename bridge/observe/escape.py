"""Text from a device, made safe for a terminal and for a line of a log.

A topic, a Client Identifier or an error text may hold anything: a line break
forges a second log line, an escape sequence repaints the terminal of whoever
reads it, a bidirectional override makes a line read backwards. Whatever is not
printable is therefore spelled out, as Python would spell it in a string.
"""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""Return `text` with every unprintable character as `\n`, `\x1b` or `\u202e`, on one line."""
    if text.isprintable():  # nearly always, and far cheaper than looking at each character
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
