"""What the file does not say itself: environment, files and systemd credentials.

    ${env:X}             the environment variable X; a mistake when it is not set
    ${env:X:-default}    the same, or the default when it is not set or empty
    ${file:/path}        the content of a file, without its last line break
    ${cred:name}         the same, of a file in systemd's $CREDENTIALS_DIRECTORY
    $${                  the two characters ${ themselves

Filled in after the YAML was parsed and only in values, so what comes in stays one
value: it cannot add keys or change what the rest of the file means. Everything
that came in this way is taken for a secret, and prints as ***.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bridge.policy.spelling import did_you_mean
from bridge.private import read_private

__all__ = ["MASK", "expand", "has_reference", "mask_line", "mask_url"]

MASK: Final = "***"
_BYTES_MAX: Final = 65_536  # no secret is longer; /dev/zero is
_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KINDS: Final = ("env", "file", "cred")
_DEFAULT: Final = re.compile(
    r"(\$\{[^${}:]*:[^${}:]*:-)([^}]*)"
)  # no $ or {, or hostile text costs its square
_PASSWORD: Final = re.compile(r"(://[^/@\s:]*:)([^/@\s]+)(?=@)")


def has_reference(text: str) -> bool:
    """Whether `expand` would fill anything in (or take a doubled $ away)."""
    return "${" in text


def expand(text: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the text with every reference filled in. Raises ValueError that says what to write instead."""
    environ = os.environ if environ is None else environ

    def fill(reference: re.Match[str]) -> str:
        if reference[0] == "$${":
            return "${"
        if not reference[2]:
            raise ValueError("'${' without '}'; write '$${' for these two characters themselves")
        return _look_up(reference[1], environ)

    expanded = _REFERENCE.sub(fill, text)
    if "\0" in expanded or not _is_text(expanded):
        raise ValueError(f"what {mask_line(text)} stands for is not text")
    return expanded


def _look_up(inner: str, environ: Mapping[str, str]) -> str:
    kind, colon, rest = inner.partition(":")
    if kind not in _KINDS or not colon:
        if _NAME.match(inner):
            raise ValueError(f"write '${{env:{inner}}}' for an environment variable")
        raise ValueError(
            f"unknown source {kind[:64]!r}; known are env, file, cred{did_you_mean(kind, _KINDS)}"
        )
    if kind == "file":
        if not rest.startswith("/"):
            raise ValueError(f"'${{file:{rest}}}' needs a path that begins with /")
        return _read(Path(rest))
    if kind == "cred":
        if not rest or "/" in rest:
            raise ValueError(f"'${{cred:{rest}}}' needs the name of a credential, without a folder")
        folder = environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise ValueError(
                f"'${{cred:{rest}}}': there are no credentials here; "
                f"start under systemd with LoadCredential={rest}:/path, or write ${{file:/path}}"
            )
        return _read(Path(folder, rest))
    name, has_default, default = rest.partition(":-")
    if not _NAME.match(name):
        raise ValueError(f"{name[:64]!r} is not the name of an environment variable")
    value = environ.get(name, "")
    if value or (name in environ and not has_default):
        return value
    if not has_default:
        raise ValueError(f"the environment variable {name} is not set; '${{env:{name}:-…}}' gives a default")
    return default


def _read(path: Path) -> str:
    content = read_private(path, _BYTES_MAX)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")


def _is_text(text: str) -> bool:
    """False for lone surrogates: an environment variable that was not UTF-8 arrives with them."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def mask_line(line: str) -> str:
    """Hide defaults of references and passwords in URLs; every other character keeps its column."""

    def stars(found: re.Match[str]) -> str:
        return found[1] + "*" * len(found[2])

    return _PASSWORD.sub(stars, _DEFAULT.sub(stars, line))


def mask_url(text: str) -> str:
    """Hide the password in any URL within the text."""
    return _PASSWORD.sub(lambda found: found[1] + MASK, text)
