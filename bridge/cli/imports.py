"""`edgespool import`: another broker's configuration in, ours out.

The YAML goes to stdout, to be redirected into a file. The same notes that stand at its
top go to stderr too, where whoever redirects still sees them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bridge.errors import ConfigError
from bridge.migrate import import_mosquitto

__all__ = ["print_import"]


def print_import(path: Path, *, directory: Path | None, port: int | None, version: str | None) -> int:
    """Print the equivalent of a mosquitto.conf, or the first mistake in it; return the exit code."""
    try:
        imported = import_mosquitto(path, directory, port=port, version=version)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return ConfigError.EXIT_CODE
    sys.stdout.write(imported.text)
    sys.stdout.flush()
    for note in imported.notes:
        print(note, file=sys.stderr)
    print(f"{len(imported.notes)} notes; check the result with: edgespool validate FILE", file=sys.stderr)
    return 0
