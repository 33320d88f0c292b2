"""Rounds: A B C A B C …, a fresh server in a fresh folder every time, and gone afterwards.

Three things are measured: loads against every server, what ours needs when nobody
is there (`measure_idle`), and whether what ours acknowledged under load is really
in its log after a kill -9 (`measure_durable`). The last is no figure but the
condition under which the others mean anything.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from bridge.store import Spool
from tests.bench.loads import Load
from tests.bench.servers import ROOT, Default, Edgespool, Server

__all__ = ["measure_durable", "measure_idle", "measure_load"]

SETTLE_S: Final = 2.0  # behind the first CONNACK, before memory is read
_LATE_S: Final = 60.0  # what a generator may take beyond what it was told

Say = Callable[[str], None]


def _generate(server: Server, load: Load, **more: Any) -> subprocess.Popen[str]:
    options = load.options()
    arguments = {key: options[key] for key in ("connections", "window", "qos", "payload_bytes")}
    arguments |= {"port": server.port, "pid": server.pid, **more}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench.load", json.dumps(arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def _result(generator: subprocess.Popen[str], seconds: float) -> dict[str, Any]:
    try:
        out, _ = generator.communicate(timeout=seconds + _LATE_S)
    except BaseException:
        generator.kill()
        generator.communicate()
        raise
    if generator.returncode:
        raise RuntimeError(f"the load generator failed with {generator.returncode}")
    result: dict[str, Any] = json.loads(out)
    return result


def _one(folder: Path, kind: type[Server], load: Load, warm_s: float, seconds: float) -> dict[str, Any]:
    server = kind(folder)
    try:
        server.start()
        result = _result(_generate(server, load, warm_s=warm_s, seconds=seconds), warm_s + seconds)
        return result | server.facts()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def measure_load(
    folder: Path,
    load: Load,
    kinds: Sequence[type[Server]],
    rounds: int,
    warm_s: float,
    seconds: float,
    say: Say,
) -> dict[str, list[dict[str, Any]]]:
    """Every server in every round, in turn; the rounds of each, by its name."""
    results: dict[str, list[dict[str, Any]]] = {kind.name: [] for kind in kinds}
    for turn in range(rounds):
        for kind in kinds:
            result = _one(folder / f"{load.name}-{turn}-{kind.__name__}", kind, load, warm_s, seconds)
            results[kind.name].append(result)
            say(f"{load.name} {turn + 1}/{rounds} {kind.name}: {result['messages_per_s']:,.0f} msg/s")
    return results


def measure_idle(folder: Path, rounds: int, settle_s: float, say: Say) -> list[dict[str, Any]]:
    """The default configuration: seconds from the start to CONNACK, and bytes resident a moment later."""
    results = []
    for turn in range(rounds):
        server = Default(folder / f"idle-{turn}")
        try:
            server.start()
            time.sleep(settle_s)
            results.append({"ready_s": server.ready_s, "resident_bytes": server.resident_bytes()})
        finally:
            server.stop()
            shutil.rmtree(server.folder, ignore_errors=True)
        say(f"idle {turn + 1}/{rounds}: ready after {results[-1]['ready_s']:.2f} s")
    return results


def measure_durable(
    folder: Path, load: Load, kind: type[Edgespool], seconds: float, say: Say
) -> dict[str, Any]:
    """Kill ours in the middle of a load and count: what was acknowledged, and what the log has of it.

    `missing` are acknowledged messages that are not there. One device's messages are
    stored in the order in which it sent them, so counting by topic is enough. A kill
    spares the page cache: this proves "written before acknowledged", and it takes a
    disk that forgets, as the tests of the store have, to prove "synced".
    """
    server = kind(folder / "durable")
    try:
        server.start()
        generator = _generate(server, load, warm_s=0.0, seconds=seconds + _LATE_S, until_closed=True)
        time.sleep(seconds)
        server.kill()
        result = _result(generator, seconds)
        acknowledged: dict[str, int] = result["by_topic"]
        stored = asyncio.run(_count_stored(server.state))
    finally:
        server.kill()
        shutil.rmtree(server.folder, ignore_errors=True)
    missing = sum(max(0, count - stored[topic]) for topic, count in acknowledged.items())
    total = sum(acknowledged.values())
    say(f"durable: {total:,} acknowledged, {stored.total():,} in the log, {missing} missing")
    return {"acknowledged": total, "stored": stored.total(), "missing": missing}


async def _count_stored(state: Path) -> Counter[str]:
    """Messages in the uplink of a store that nobody has open any more, by topic."""
    spool = Spool.open(str(state), 64 << 30)
    try:
        count: Counter[str] = Counter()
        position = spool.uplink.head
        while entries := spool.uplink.read(position, 10_000, 4 << 20):
            count.update(entry.message.topic for entry in entries)
            position = entries[-1].end
        return count
    finally:
        await spool.close()
