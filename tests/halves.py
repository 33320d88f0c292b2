"""`make test`: every test that takes seconds, in two halves beside each other.

The tests of the whole house mostly wait: for a kill, a time-out, a server that starts. The
others mostly calculate. So each half has a core, and one waits for the other seldom. The
half of the whole house is shown as it runs, the other when both are through.

    python -m tests.halves             the two halves
    python -m tests.halves tests/cli   only these, as one
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTEST = [sys.executable, "-m", "pytest", "-m", "not long", "--durations=15"]
HOUSE = ["tests/faults", "tests/house"]


def main(where: list[str]) -> int:
    """Return 0 when every test went well."""
    if where != ["tests"]:
        return subprocess.run([*PYTEST, *where], cwd=ROOT).returncode
    others = [*PYTEST, "-p", "no:cacheprovider", "tests", *(f"--ignore={folder}" for folder in HOUSE)]
    with tempfile.TemporaryFile() as output:
        beside = subprocess.Popen(others, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            house = subprocess.run([*PYTEST, *HOUSE], cwd=ROOT).returncode
            rest = beside.wait()
        except KeyboardInterrupt:  # which the other has heard, too: it stops its servers
            return beside.wait(60) or 1
        output.seek(0)
        print(f"\n===== the tests of everything else, which ran beside these =====\n{output.read().decode()}")
    return house or rest


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["tests"]))
