"""One line of a password file: a user, and a hash that proves a password without telling it.

    user:$scrypt$ln=14,r=8,p=1$SALT$HASH     ours; 16 MiB and 30 ms for every guess
    user:$7$ITERATIONS$SALT$HASH             Mosquitto's: PBKDF2-HMAC-SHA512
    user:$6$SALT$HASH                        Mosquitto's until 1.6: SHA-512, once

Everything else is an error that says what to write instead, a password in plain text
above all: no line is ever skipped, and none lets somebody in by being broken. What a
line may cost is bounded, since a login costs it again each time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

__all__ = ["Password", "check_user", "decoy", "make_line", "parse_line"]

SALT_BYTES: Final = 16
_LN, _R, _P = 14, 8, 1  # 16 MiB of memory: two at a time are what a small box can spare
_HASH_BYTES: Final = 32

_MEMORY_MAX: Final = 64 * 1024 * 1024  # of one guess
_BLOCKS_MAX: Final = 1 << 20  # N × r × p: a quarter of a second
_ITERATIONS_MAX: Final = 1_000_000  # half a second
_ITERATIONS_FAIR: Final = 10_000  # Mosquitto 2.0 makes 101; below this a guess costs next to nothing
_SALT_BYTES: Final = (4, 1024)
_USER_BYTES_MAX: Final = 65_535  # as long as MQTT can say it

_SCRYPT: Final = re.compile(
    r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,3}),p=([0-9]{1,3})\$([^$]*)\$([^$]*)\Z", re.A
)
_PBKDF2: Final = re.compile(r"\$7\$([0-9]{1,9})\$([^$]*)\$([^$]*)\Z", re.A)
_SHA512: Final = re.compile(r"\$6\$([^$]*)\$([^$]*)\Z")
_ANEW: Final = "make it anew with `edgespool passwd`"


class Password(msgspec.Struct, frozen=True):
    """What one user has to prove. `hashed` is the line without the user, and says all of the rest."""

    user: str
    hashed: str
    scheme: str  # `scrypt`, `7` or `6`
    cost: tuple[int, ...]
    salt: bytes
    expected: bytes

    def verify(self, password: bytes) -> bool:
        """Whether this is the password. Takes as long as the cost says, and up to 64 MiB.

        Zero bytes at its end do not count, in none of the schemes with an HMAC inside:
        the same secret in two spellings, not a second one.
        """
        return hmac.compare_digest(
            _digest(self.scheme, self.cost, self.salt, password, len(self.expected)), self.expected
        )

    @property
    def weak(self) -> bool:
        """Whether who has read the file finds most passwords in an afternoon."""
        return self.scheme == "6" or (self.scheme == "7" and self.cost[0] < _ITERATIONS_FAIR)

    def __repr__(self) -> str:
        return f"Password({self.user!r})"  # a hash is half a secret


def check_user(user: str) -> str | None:
    """Return what is wrong with the name of a user, or None when nothing is."""
    if not user:
        return "a user needs a name"
    if ":" in user:
        return "a user's name must not contain ':', which ends it in a password file"
    if user[0] == "#":
        return "a user's name must not begin with '#', which begins a comment in a password file"
    if user != user.strip():
        return "a user's name must not begin or end with a space"
    if any(not character.isprintable() for character in user):
        return "a user's name must not contain control characters"
    if len(user.encode()) > _USER_BYTES_MAX:
        return f"a user's name has at most {_USER_BYTES_MAX} bytes"
    return None


def parse_line(line: str) -> Password:
    """Read `user:hash`. Raises ValueError that says what to write instead, and never shows the hash."""
    user, colon, hashed = line.partition(":")
    if not colon:
        raise ValueError("has no ':'; a line is USER:HASH, as `edgespool passwd` writes it")
    if wrong := check_user(user):
        raise ValueError(wrong)
    if not hashed:
        raise ValueError(f"user {user!r} has no password; {_ANEW}")
    scheme, cost, salt, expected = _parse_hash(hashed)
    return Password(user, hashed, scheme, cost, salt, expected)


def _parse_hash(hashed: str) -> tuple[str, tuple[int, ...], bytes, bytes]:
    if found := _SCRYPT.match(hashed):
        ln, r, p = int(found[1]), int(found[2]), int(found[3])
        if not (1 <= ln <= 31 and r >= 1 and p >= 1) or 128 * r * ((1 << ln) + p + 2) > _MEMORY_MAX:
            raise ValueError(f"ln={ln},r={r},p={p} needs more than 64 MiB for each login; {_ANEW}")
        if (1 << ln) * r * p > _BLOCKS_MAX:
            raise ValueError(f"ln={ln},r={r},p={p} takes too long for each login; {_ANEW}")
        return "scrypt", (ln, r, p), _salt(found[4]), _expected(found[5], 16, 64)
    if found := _PBKDF2.match(hashed):
        iterations = int(found[1])
        if not 1 <= iterations <= _ITERATIONS_MAX:
            raise ValueError(f"{iterations} iterations: 1 to {_ITERATIONS_MAX} are read; {_ANEW}")
        return "7", (iterations,), _salt(found[2]), _expected(found[3], 64, 64)
    if found := _SHA512.match(hashed):
        return "6", (), _salt(found[1]), _expected(found[2], 64, 64)
    if not hashed.startswith("$"):
        raise ValueError(f"the password stands there in plain text, or after a ':' in the name; {_ANEW}")
    scheme = hashed.split("$")[1]
    if scheme in ("scrypt", "7", "6"):
        raise ValueError(f"the ${scheme}$ hash is not complete, or has something after it; {_ANEW}")
    known = "known are $scrypt$ and Mosquitto's $7$ and $6$"
    if re.fullmatch("[a-z0-9-]{1,16}", scheme):
        raise ValueError(f"hashes of the kind ${scheme}$ are not read, {known}; {_ANEW}")
    raise ValueError(f"this is no hash, {known}; {_ANEW}")


def _salt(text: str) -> bytes:
    least, most = _SALT_BYTES
    return _bytes(text, "salt", least, most)


def _expected(text: str, least: int, most: int) -> bytes:
    return _bytes(text, "hash", least, most)


def _bytes(text: str, what: str, least: int, most: int) -> bytes:
    """Base64 with or without its padding: Mosquitto writes it, the PHC form does not."""
    plain = text.rstrip("=")
    try:
        found = b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        raise ValueError(f"the {what} is not base64; {_ANEW}") from None
    if not least <= len(found) <= most:
        raise ValueError(f"the {what} has {len(found)} bytes, not {least} to {most}; {_ANEW}")
    return found


def _digest(scheme: str, cost: tuple[int, ...], salt: bytes, password: bytes, length: int) -> bytes:
    if scheme == "scrypt":
        ln, r, p = cost
        return hashlib.scrypt(
            password, salt=salt, n=1 << ln, r=r, p=p, maxmem=_MEMORY_MAX + (1 << 20), dklen=length
        )
    if scheme == "7":
        return hashlib.pbkdf2_hmac("sha512", password, salt, cost[0])
    assert scheme == "6"
    return hashlib.sha512(password + salt).digest()


def make_line(user: str, password: bytes, salt: bytes) -> str:
    """Return a line for a user, without a line break; `salt` is `SALT_BYTES` of luck.

    Raises ValueError for a name that cannot stand in a file, and for no password at all.
    """
    if wrong := check_user(user):
        raise ValueError(wrong)
    if not password:
        raise ValueError("an empty password is none")
    if len(password) > _USER_BYTES_MAX:
        raise ValueError(f"a password has at most {_USER_BYTES_MAX} bytes, as MQTT can say it")
    digest = _digest("scrypt", (_LN, _R, _P), salt, password, _HASH_BYTES)
    return f"{user}:$scrypt$ln={_LN},r={_R},p={_P}${_spell(salt)}${_spell(digest)}"


def _spell(data: bytes) -> str:
    return b64encode(data).decode().rstrip("=")


def decoy(passwords: Mapping[str, Password], luck: bytes) -> Password:
    """What a user who is not there has to prove: it costs what most others cost, and nothing proves it.

    Without it, the time of an answer would tell which names there are.
    """
    kinds = Counter((each.scheme, each.cost, len(each.expected)) for each in passwords.values())
    scheme, cost, length = kinds.most_common(1)[0][0] if kinds else ("scrypt", (_LN, _R, _P), _HASH_BYTES)
    expected = hashlib.shake_256(luck).digest(length)
    return Password("", "", scheme, cost, luck[:SALT_BYTES], expected)
