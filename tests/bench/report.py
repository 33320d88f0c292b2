"""Figures of many rounds → medians, ratios inside each round, a table of 100 columns, JSON.

A ratio is taken between two servers of the same round, and then the median of those:
whatever else the machine did in that minute happened to both.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.bench.loads import Load

__all__ = ["describe_machine", "figures", "idle_figures", "print_idle", "print_load"]

GENERATOR_BUSY: Final = 0.8  # above this share of a core the generator may be what was measured
RESIDENT_BYTES_MAX: Final = 64 << 20
READY_S_MAX: Final = 1.5
OURS: Final = "edgespool"
_WIDTHS: Final = (17, 31, 19, 8, 8, 9)


def describe_machine(folder: Path) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "filesystem": _filesystem(folder),
        "sync_ms": _sync_s(folder) * 1000,
        **{name: _version(name) for name in ("uvloop", "msgspec")},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _filesystem(folder: Path) -> str:
    best, kind = "", "?"
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, point, found, *_ = line.split()
        inside = str(folder.resolve()) == point or str(folder.resolve()).startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, found
    return kind


def _sync_s(folder: Path) -> float:
    """What one fdatasync of 4 KiB takes here, the median of some: the price of one commit."""
    took = []
    path = folder / "sync"
    with path.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, 1 << 20)
        for turn in range(50):
            began = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * 4096, turn * 4096)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    path.unlink()
    return median(took)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def figures(load: Load, rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What the JSON says of one load."""
    servers: dict[str, Any] = {}
    for name, results in rounds.items():
        numbers = {
            key: _spread([result[key] for result in results])
            for key, value in results[0].items()
            if isinstance(value, int | float) and all(result[key] is not None for result in results)
        }
        servers[name] = {**numbers, "rounds": results}
    ratios = {}
    for ours in (name for name in rounds if name.startswith(OURS)):
        for other in (name for name in rounds if name != ours):
            pairs = zip(rounds[ours], rounds[other], strict=True)
            ratios[f"{ours} / {other}"] = _spread(
                [mine["messages_per_s"] / (theirs["messages_per_s"] or 1) for mine, theirs in pairs]
            )
    missed = []
    for other, least in load.targets:
        key = f"{OURS} / {other}"
        if key in ratios and ratios[key]["median"] < least:
            missed.append(f"{key} is {ratios[key]['median']:.2f}, the target is {least:.1f}")
    return {"load": load.options(), "servers": servers, "ratios": ratios, "missed": missed}


def _row(*cells: str) -> str:
    first, *rest = (
        cell.ljust(width) if not at else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    )
    return " ".join((first, *rest)).rstrip()


def print_load(load: Load, found: dict[str, Any]) -> None:
    """One load as a table; ratios are ours (asyncio) over theirs."""
    print(f"\n{load.title}")
    print(_row("server", "msg/s (min–max)", f"{OURS} / it", "CPU µs", "bytes", "generator"))
    busy = False
    for name, server in found["servers"].items():
        rate, generator = server["messages_per_s"], server["generator_cpu"]["median"]
        ratio = found["ratios"].get(f"{OURS} / {name}")
        over = generator > GENERATOR_BUSY
        busy |= over
        written = server.get("disk_bytes")
        print(
            _row(
                name,
                f"{rate['median']:,.0f} ({rate['min']:,.0f}–{rate['max']:,.0f})",
                f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})" if ratio else "",
                f"{server['cpu_us']['median']:.1f}",
                f"{written['median']:,.0f}" if written else "?",
                f"{generator:.0%}{'!' if over else ''}",
            )
        )
    for name, server in found["servers"].items():
        if "commits" in server:
            print(
                f"  {name}: {server['messages_per_commit']['median']:,.0f} messages a commit, "
                f"{server['commit_ms']['median']:.2f} ms each"
            )
    for text in found["missed"]:
        print(f"  MISSED: {text}")
    if busy:
        print(f"  ! the generator used more than {GENERATOR_BUSY:.0%} of a core: that server may be faster")


def idle_figures(results: list[dict[str, Any]]) -> dict[str, Any]:
    """What the JSON says of the gateway at rest."""
    found: dict[str, Any] = {key: _spread([result[key] for result in results]) for key in results[0]}
    missed = []
    if found["resident_bytes"]["median"] > RESIDENT_BYTES_MAX:
        missed.append(f"resident memory is above {RESIDENT_BYTES_MAX >> 20} MiB")
    if found["ready_s"]["median"] > READY_S_MAX:
        missed.append(f"CONNACK comes later than {READY_S_MAX} s after the start")
    return {**found, "rounds": results, "missed": missed}


def print_idle(found: dict[str, Any]) -> None:
    """Two lines and what was missed."""
    resident, ready = found["resident_bytes"], found["ready_s"]
    mib = {key: value / (1 << 20) for key, value in resident.items()}
    print("\nAt rest, with the default configuration")
    print(
        f"  resident memory  {mib['median']:.1f} MiB ({mib['min']:.1f}–{mib['max']:.1f}), "
        f"at most {RESIDENT_BYTES_MAX >> 20}"
    )
    print(
        f"  start to CONNACK {ready['median']:.2f} s ({ready['min']:.2f}–{ready['max']:.2f}), "
        f"at most {READY_S_MAX}"
    )
    for text in found["missed"]:
        print(f"  MISSED: {text}")
