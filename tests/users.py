"""Password files for tests: hashes that cost next to nothing, so that only what is tested takes time."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

__all__ = ["quick_line", "write_users"]


def quick_line(user: str, password: bytes, iterations: int = 10) -> str:
    """A line as Mosquitto writes them."""
    salt = user.encode().ljust(12, b"s")[:12]
    digest = hashlib.pbkdf2_hmac("sha512", password, salt, iterations)
    return f"{user}:$7${iterations}${b64encode(salt).decode()}${b64encode(digest).decode()}"


def write_users(path: Path, users: Mapping[str, str]) -> Path:
    """A password file that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_text("".join(quick_line(user, password.encode()) + "\n" for user, password in users.items()))
    return path
