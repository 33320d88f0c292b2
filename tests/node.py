"""Packages for Node, installed once and kept in .cache: `make clean` forgets them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers import binary

__all__ = ["installed"]

_CACHE = Path(__file__).parents[1] / ".cache"


def installed(folder: Path, name: str) -> Path:
    """Return .cache/NAME, with the packages that `folder`/package-lock.json asks for.

    Skips at home and fails in CI where they cannot be had.
    """
    npm = binary("npm")
    cache = _CACHE / name
    lock = (folder / "package-lock.json").read_text(encoding="utf-8")
    stamp = cache / ".installed"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != lock:
        cache.mkdir(parents=True, exist_ok=True)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(folder / file, cache)
        # Where a package has a library it brings it for every platform; its script would only build another.
        done = subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=cache,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            if os.environ.get("CI") == "true":
                pytest.fail(f"npm ci failed:\n{done.stderr}")
            pytest.skip(f"npm ci failed: {done.stderr[-200:]}")
        stamp.write_text(lock, encoding="utf-8")
    return cache
