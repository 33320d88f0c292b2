"""`make test-long`: the tests that take minutes, two files at a time, and a table of what each took.

Most of these tests wait: for a kill, a time-out, a disk. So two of them share the machine,
each file in a pytest of its own. What measures time is marked `alone` as well, and has the
machine to itself when the others are through. The file that took longest the last time
begins first, so that nobody waits for it at the end.

    python -m tests.long [FILE_OR_FOLDER …]
"""

from __future__ import annotations

import collections
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent
REMEMBERED = ROOT / ".cache" / "long.json"  # seconds of each file, as of the last time
AT_A_TIME = 2
SHARED, ALONE = "long and not alone", "long and alone"
NOTHING_COLLECTED = 5


class Run:
    """One file under pytest."""

    def __init__(self, file: str, marks: str, folder: Path) -> None:
        self.file, self.marks = file, marks
        self._report = folder / f"{file.replace('/', '-')}-{marks.count('not')}.xml"
        self._output = self._report.with_suffix(".txt")
        command = [
            sys.executable, "-m", "pytest", "-q", "-m", marks, "--timeout=3600", "-p", "no:cacheprovider",
            f"--junitxml={self._report}", "-o", "junit_logging=system-out", file,
        ]  # fmt: skip
        self._began = time.monotonic()
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)

    def over(self) -> bool:
        if self._process.poll() is None:
            return False
        self.took_s = time.monotonic() - self._began
        return True

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def told(self) -> tuple[bool, list[tuple[str, float]]]:
        """Say how it went; return whether it went well, and the seconds of each test."""
        well = self._process.returncode in (0, NOTHING_COLLECTED)
        tests = []
        for case in ElementTree.parse(self._report).iter("testcase") if self._report.exists() else ():
            name, took_s = f"{self.file}::{case.get('name')}", float(case.get("time") or 0)
            kinds = {child.tag for child in case}
            word = "FAILED" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
            print(f"{word:8}{took_s:6.0f} s  {name}")
            for line in (case.findtext("system-out") or "").splitlines():
                if line.strip() and not line.startswith("---"):
                    print(f"{'':18}{line}")
            tests.append((name, took_s))
        if not well:
            print(self._output.read_text(errors="replace"))
        return well, tests


def files_of(marks: str, where: list[str]) -> list[str]:
    """The files that have such tests, those that took longest (or are new) first."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", marks, *where]
    found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if found.returncode not in (0, NOTHING_COLLECTED):
        sys.exit(found.stdout)
    files = dict.fromkeys(line.partition("::")[0] for line in found.stdout.splitlines() if "::" in line)
    remembered = json.loads(REMEMBERED.read_text()) if REMEMBERED.exists() else {}
    return sorted(files, key=lambda file: -remembered.get(file, 1e9))


def main(where: list[str]) -> int:
    """Return 1 when any test failed."""
    began = time.monotonic()
    took_s: dict[str, float] = {}
    tests: list[tuple[str, float]] = []
    all_well = True
    with tempfile.TemporaryDirectory() as folder:
        for marks, at_a_time in ((SHARED, AT_A_TIME), (ALONE, 1)):
            waiting = collections.deque(files_of(marks, where))
            running: list[Run] = []
            try:
                while waiting or running:
                    while waiting and len(running) < at_a_time:
                        running.append(Run(waiting.popleft(), marks, Path(folder)))
                    time.sleep(0.2)
                    for run in [run for run in running if run.over()]:
                        running.remove(run)
                        well, found = run.told()
                        all_well = all_well and well
                        tests += found
                        took_s[run.file] = max(took_s.get(run.file, 0), run.took_s)
                        sys.stdout.flush()
            finally:
                for run in running:
                    run.stop()
    REMEMBERED.parent.mkdir(exist_ok=True)
    before = json.loads(REMEMBERED.read_text()) if REMEMBERED.exists() else {}
    REMEMBERED.write_text(json.dumps(before | took_s))
    minutes, in_all = (time.monotonic() - began) / 60, sum(each for _, each in tests) / 60
    print(f"{len(tests)} long tests, {in_all:.1f} minutes of them in {minutes:.1f}")
    return 0 if all_well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["tests"]))
