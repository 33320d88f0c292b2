"""The text of an expression → its tokens, one at a time, each with its column.

    word   := letter or _, then letters, digits and _
    number := digits ["." digits] ["e" [sign] digits]
    string := "…" or '…', with the escapes of JSON
    sign   := == != <= >= < > + - * / % ( ) [ ] , .

What other languages write instead (`&&`, `!`, `=`) is answered with what to write here.
Each character is looked at once, and text that is half a character (a lone surrogate)
never gets further: it could not be sent.
"""

from __future__ import annotations

import math
import re
from typing import Final

import msgspec

__all__ = ["END", "WORD", "ExpressionError", "Token", "Tokens", "half_character"]

WHOLE_MAX: Final = (1 << 63) - 1
END: Final = "end"

_SPACE: Final = re.compile(r"[ \t\r\n]*")
WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_SIGN: Final = re.compile(r"==|!=|<=|>=|[<>+\-*/%()\[\],.]")
_PLAIN: Final = re.compile(r"[^\"'\\\x00-\x1f]+")
_ESCAPES: Final = {
    '"': '"', "'": "'", "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t",
}  # fmt: skip
_HEX: Final = re.compile(r"[0-9A-Fa-f]{4}")
_SLIPS: Final = {"=": "==", "&": "and", "|": "or", "!": "not"}


class ExpressionError(ValueError):
    """An expression that cannot be used; `column` counts from 0 within the text it stands in."""

    def __init__(self, text: str, column: int) -> None:
        super().__init__(text)
        self.column = column


class Token(msgspec.Struct, frozen=True):
    """One token; `value` is that of a number or a string."""

    kind: str  # "word", "number", "string", "sign" or END
    text: str
    at: int
    value: str | int | float = ""


class Tokens:
    """Reads the tokens of a text, one after the other."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def read(self) -> Token:
        """The next token; after the last one END, for ever. Raises ExpressionError."""
        text = self._text
        spaces = _SPACE.match(text, self._at)
        at = self._at = spaces.end() if spaces else self._at
        if at >= len(text):
            return Token(END, "", at)
        character = text[at]
        if found := WORD.match(text, at):
            self._at = found.end()
            return Token("word", found[0], at)
        if found := _NUMBER.match(text, at):
            self._at = found.end()
            return Token("number", found[0], at, self._number(found[0], at))
        if character in "\"'":
            return self._string(character, at)
        if found := _SIGN.match(text, at):
            self._at = found.end()
            return Token("sign", found[0], at)
        if (instead := _SLIPS.get(character)) is not None:
            shown = character * 2 if text[at + 1 : at + 2] == character else character
            raise ExpressionError(f"unknown operator {shown!r}; write {instead!r}", at)
        raise ExpressionError(f"unexpected {character!r}", at)

    def _number(self, spelled: str, at: int) -> int | float:
        if behind := WORD.match(self._text, self._at):
            raise ExpressionError(f"{(spelled + behind[0])[:64]!r} is not a number; units are not known", at)
        value: int | float
        if spelled.isdigit():
            # Python refuses to read thousands of digits, and says so in its own words.
            value = int(spelled) if len(spelled) < 20 else WHOLE_MAX + 1
            if value > WHOLE_MAX:
                raise ExpressionError(f"a whole number may be {WHOLE_MAX} at most", at)
            return value
        value = float(spelled)
        if not math.isfinite(value):
            raise ExpressionError("this number is too large", at)
        return value

    def _string(self, quote: str, at: int) -> Token:
        text, pieces, here = self._text, [], at + 1
        while True:
            if plain := _PLAIN.match(text, here):
                pieces.append(plain[0])
                here = plain.end()
            character = text[here : here + 1]
            if character == quote:
                break
            if character == "\\":
                piece, here = self._escape(here)
                pieces.append(piece)
            elif character and character in "\"'":
                pieces.append(character)
                here += 1
            elif not character:
                raise ExpressionError(f"this {quote} is never closed", at)
            else:
                raise ExpressionError("a control character in a string; write it as \\u00XX", here)
        self._at = here + 1
        value = "".join(pieces)
        if (lone := half_character(value)) is not None:
            raise ExpressionError(f"{lone!r} is half a character", at)
        return Token("string", text[at : self._at], at, value)

    def _escape(self, at: int) -> tuple[str, int]:
        """The character that the escape at `at` stands for, and where the text goes on."""
        text, letter = self._text, self._text[at + 1 : at + 2]
        if letter in _ESCAPES:
            return _ESCAPES[letter], at + 2
        if letter == "u" and (first := _HEX.match(text, at + 2)):
            code = int(first[0], 16)
            if 0xD800 <= code < 0xDC00 and text[at + 6 : at + 8] == "\\u":
                second = _HEX.match(text, at + 8)
                if second is not None and 0xDC00 <= (low := int(second[0], 16)) < 0xE000:
                    return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)), at + 12
            return chr(code), at + 6
        raise ExpressionError("unknown escape; there are \\\" \\' \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX", at)


def half_character(text: str) -> str | None:
    """The first character that has no UTF-8, if there is one."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return text[error.start]
    return None
