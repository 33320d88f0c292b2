"""A mistake in the configuration, and the report that lists them all.

    plant.yaml:14:13 routes.telemetry.batch.wait: '200' has no unit; write '200ms' or '200s'
        batch: {wait: 200}
                      ^

Whoever wrote three mistakes wants to hear of three, once, in the order of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from bridge.errors import ConfigError

__all__ = ["ConfigProblems", "Path", "Problem", "spell_path"]

Path = tuple[str | int, ...]
"""Where in the document: ("routes", "telemetry", "from", 0)."""

PROBLEMS_MAX: Final = 50  # after that many nobody reads on, and hostile input must not make a long report
_SOURCE_MAX: Final = 110  # characters of the source line that are shown around the caret


class Problem(msgspec.Struct, frozen=True):
    """One mistake. `line` and `column` count from 1; both are 0 for what no file says, like an override."""

    file: str
    line: int
    column: int
    path: str
    text: str
    source: str = ""  # the line it stands in, secrets already masked

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        head = f"{where} {self.path}: {self.text}" if self.path else f"{where}: {self.text}"
        if not self.source.strip():
            return head
        begin = max(0, self.column - 1 - _SOURCE_MAX // 2) if len(self.source) > _SOURCE_MAX else 0
        shown = self.source[begin : begin + _SOURCE_MAX].expandtabs(1)
        return f"{head}\n    {shown.rstrip()}\n    {' ' * (self.column - 1 - begin)}^"


class ConfigProblems(ConfigError):
    """A ConfigError that also has its problems one by one, for whoever does not print text."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.line, problem.column))
        shown = [str(problem) for problem in self.problems[:PROBLEMS_MAX]]
        if len(self.problems) > PROBLEMS_MAX:
            shown.append(f"… and {len(self.problems) - PROBLEMS_MAX} more")
        super().__init__("\n".join(shown))


def spell_path(path: Path) -> str:
    """Return `routes.telemetry.from[0]`."""
    spelled = ""
    for step in path:
        if isinstance(step, int):
            spelled += f"[{step}]"
        else:
            spelled += f".{step[:64]}" if spelled else step[:64]
    return spelled
