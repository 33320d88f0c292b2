"""`make bench`: measure, print a table, and keep the figures in .cache/bench.

make bench                                      all loads, 5 rounds: some eight minutes
make bench ARGS="--quick"                       20 seconds: does it work at all
make bench ARGS="--loads qos1_50x1 --rounds 9"  one load, more rounds
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.loads import LOADS
from tests.bench.report import describe_machine, figures, idle_figures, print_idle, print_load
from tests.bench.rounds import SETTLE_S, measure_durable, measure_idle, measure_load
from tests.bench.servers import ROOT, SERVERS, Edgespool


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    loads, servers = [load.name for load in LOADS], [kind.name for kind in SERVERS]
    parser.add_argument("--rounds", type=int, default=5, help="how often each server is measured (5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long, behind the warm-up (4)")
    parser.add_argument("--warm", type=float, default=1.0, help="seconds before measuring (1)")
    parser.add_argument("--loads", nargs="+", choices=loads, default=loads)
    parser.add_argument("--servers", nargs="+", choices=servers, default=servers)
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache/bench", help="on a real disk")
    parser.add_argument("--json", type=Path, help="where the figures go (a new file in the folder)")
    parser.add_argument("--quick", action="store_true", help="one short round: figures of no worth")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.warm = 1, 0.6, 0.2
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Return 1 when an acknowledged message is missing; a target missed only says so."""
    options = _arguments(argv)
    sys.stdout.reconfigure(line_buffering=True)  # so that the table and what is said meanwhile stay in order
    options.folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "machine": describe_machine(options.folder),
        "loads": {},
        "absent": {},
    }
    machine = report["machine"]
    print(
        f"Python {machine['python']}, {machine['cores']} cores, load {machine['load_average']:.1f}, "
        f"{machine['filesystem']} with {machine['sync_ms']:.2f} ms a sync; "
        f"{options.rounds} rounds of {options.seconds:g} s"
    )
    if machine["filesystem"] == "tmpfs":
        print("this folder is in memory: what is durable here costs nothing; choose another with --folder")
    kinds = []
    for kind in (kind for kind in SERVERS if kind.name in options.servers):
        if why := kind.missing():
            report["absent"][kind.name] = why
            print(f"not measured: {kind.name}: {why}")
        else:
            kinds.append(kind)

    folder = Path(tempfile.mkdtemp(prefix="run-", dir=options.folder))
    try:
        for load in (load for load in LOADS if load.name in options.loads):
            # In a hurry the peers are asked once whether they can be measured at all.
            asked = kinds if load is LOADS[0] or not options.quick else kinds[:1]
            rounds = measure_load(folder, load, asked, options.rounds, options.warm, options.seconds, _say)
            report["loads"][load.name] = found = figures(load, rounds)
            print_load(load, found)
        settle_s = 0.3 if options.quick else SETTLE_S
        report["idle"] = idle_figures(measure_idle(folder, options.rounds, settle_s, _say))
        print_idle(report["idle"])
        report["durable"] = durable = measure_durable(
            folder, LOADS[0], Edgespool, min(options.seconds, 1.0), _say
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"\nKilled under load: {durable['acknowledged']:,} acknowledged, {durable['stored']:,} in the log, "
        f"{durable['missing']:,} missing"
    )
    path = options.json or options.folder / time.strftime("%Y%m%dT%H%M%SZ.json", time.gmtime())
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"figures: {path}")
    return 1 if durable["missing"] else 0


def _say(text: str) -> None:
    print(f"  … {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
