"""`edgespool keygen`: a pair of keys for ZeroMQ with CURVE, in two files.

The public key alone goes to stdout, so that a script can pass it on; what to do with
the files goes to stderr, for whoever sits there.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bridge.errors import ConfigError
from bridge.sinks.curve import require_curve
from bridge.sinks.keys import make_key_files

__all__ = ["make_keys"]


def make_keys(path: Path) -> int:
    """Make FILE and FILE.pub; return the exit code."""
    try:
        require_curve()
        public = make_key_files(path)
    except ConfigError as error:
        print(f"edgespool: {error}", file=sys.stderr)
        return 1
    print(
        f"{path} holds the secret key and stays here, as secret_key. {path}.pub is for the other end: "
        "its server_key where this end binds, one of its clients where this end connects.",
        file=sys.stderr,
    )
    print(public)
    return 0
