"""The README's quickstart, typed as it is printed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.house.terminal import Transcript

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def section(heading: str) -> str:
    """The text of one `##` section."""
    found = re.search(rf"^## {re.escape(heading)}.*?\n(.*?)(?=^## |\Z)", README, re.S | re.M)
    assert found is not None, f"the README has no section {heading!r}"
    return found[1]


def consoles(text: str) -> list[str]:
    return re.findall(r"^```console\n(.*?)^```", text, re.S | re.M)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """The repository as a newcomer has it, with a folder of its own for what the commands write."""
    desk = tmp_path / "edgespool"
    desk.mkdir()
    for entry in ROOT.iterdir():
        if entry.name not in (".git", ".cache"):
            (desk / entry.name).symlink_to(entry)
    return desk


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "home"
    home.mkdir()
    keep = ("PATH", "LANG", "CI")
    return {**{key: os.environ[key] for key in keep if key in os.environ}, "HOME": str(home)}


def check_received(lines: list[str]) -> None:
    """All 1,000, in order, each under one id of its own."""
    payloads = [line.split("  ")[1] for line in lines]
    ids = [line.rsplit("(", 1)[1].split(",")[0] for line in lines]
    assert payloads == [str(number) for number in range(1, 1001)]
    assert len(set(ids)) == 1000


def test_the_quickstart_does_what_it_prints(desk: Path, environ: dict[str, str]) -> None:
    with Transcript(desk, environ) as transcript:
        transcript.play(consoles(section("Quickstart")))
    check_received((desk / "received.txt").read_text().splitlines())


def test_the_quickstart_survives_kill_9_between_publishing_and_tailing(
    desk: Path, environ: dict[str, str]
) -> None:
    blocks = consoles(section("Quickstart"))
    published = next(at for at, block in enumerate(blocks) if "seq 1 1000" in block) + 1
    with Transcript(desk, environ) as transcript:
        transcript.play(blocks[:published])
        gateway = transcript.terminal("gateway")
        [process] = gateway.processes("edgespool run")[-1:]
        process.kill()
        transcript.play([blocks[0]])
        transcript.play(blocks[published:])
    check_received((desk / "received.txt").read_text().splitlines())
