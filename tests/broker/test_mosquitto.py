"""The same random packets to us and to Debian's Mosquitto: every difference is explained in `differences`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.broker.differences import EXPLANATIONS, Case, ends_after
from tests.broker.minimal import minimal
from tests.broker.sequences import BEFORE, Seen, Stage, Step, describe, sequences
from tests.gateway import Gateway
from tests.servers import Mosquitto

STEPS_MAX = 25


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Stage]]:
    folder = tmp_path_factory.mktemp("differential")
    gateway = Gateway(folder / "ours", routes={"cloud": {"from": "cloud/#", "to": "cloud"}})
    mosquitto = Mosquitto(folder / "theirs", "set_tcp_nodelay true")
    try:
        mosquitto.start()
        gateway.start()
        yield Stage(gateway.port), Stage(mosquitto.port)
    finally:
        gateway.kill()
        mosquitto.kill()


def only(ours: Seen, theirs: Seen) -> tuple[Seen, Seen]:
    """What is in one of them and not in the other."""
    left = list(theirs)
    rest = []
    for each in ours:
        if each in left:
            left.remove(each)
        else:
            rest.append(each)
    return rest, left


def explain(case: Case) -> bool:
    """Take away what is explained; return whether the two brokers still are in the same state."""
    same = True
    for explanation in EXPLANATIONS:
        if explanation.explains(case):
            explanation.matched += 1
            same &= not explanation.ends
    return same


def versions(steps: list[Step]) -> dict[str, int]:
    """Which version each device speaks after these steps."""
    return {how["name"]: how["version"] for what, how in steps if what == "connect"}


def compare(stages: tuple[Stage, Stage], steps: list[Step]) -> int:
    """Play the steps to both; return how many were compared. Fails for the first unexplained difference."""
    ours, theirs = (stage.play(steps) for stage in stages)
    try:
        for nth, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            same = True
            actor = steps[nth][1]["name"]
            for who in sorted(a.keys() | b.keys(), key=lambda who: (who != actor, who)):
                mine, other = only(a.get(who, []), b.get(who, []))
                if not mine and not other and a.get(who) == b.get(who):
                    continue
                spoken = versions(steps[:nth] if BEFORE in who else steps[: nth + 1])
                version = spoken.get(who.removesuffix(BEFORE), 0)
                case = Case(steps[nth], who, version, mine, other, steps[:nth])
                if not mine and not other:
                    fail(case, a[who], b[who], "in another order")
                same &= explain(case)
                if case.ours or case.theirs:
                    fail(case, a.get(who, []), b.get(who, []), "unexplained")
                if not same:
                    return nth + 1
            if ends_after(steps[nth]):
                return nth + 1
        return len(steps)
    finally:
        ours.close()
        theirs.close()


def fail(case: Case, ours: Seen, theirs: Seen, why: str) -> None:
    lines = [f"{why}: {case.who} (version {case.version})"]
    lines += [f"  step    {what} {how}" for what, how in (*case.before, case.step)]
    lines += [f"  ours    {describe(each)}" for each in ours]
    lines += [f"  theirs  {describe(each)}" for each in theirs]
    lines += [f"  left of ours    {describe(each)}" for each in case.ours]
    lines += [f"  left of theirs  {describe(each)}" for each in case.theirs]
    raise AssertionError("\n".join(lines))


def run(stages: tuple[Stage, Stage], examples: int, **more: Any) -> tuple[int, int]:
    steps_in_all = compared = 0

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),
        report_multiple_bugs=False,
        **more,
    )
    @given(sequences(STEPS_MAX))
    def play(steps: list[Step]) -> None:
        nonlocal steps_in_all, compared
        steps_in_all += len(steps)
        try:
            compared += compare(stages, steps)
        except AssertionError:
            compare(stages, minimal(steps, differs))
            raise

    def differs(steps: list[Step]) -> bool:
        try:
            compare(stages, steps)
        except AssertionError:
            return True
        return False

    play()
    return steps_in_all, compared


def test_mosquitto_does_what_we_do_or_it_is_known_why_not(stages: tuple[Stage, Stage]) -> None:
    in_all, compared = run(stages, 100, derandomize=True)
    assert compared > in_all / 2, "most of what is played has to be compared"


@pytest.mark.long
def test_mosquitto_does_what_we_do_in_many_more_sequences(stages: tuple[Stage, Stage]) -> None:
    in_all, compared = run(stages, int(os.environ.get("SEQUENCES", "1000")))
    assert compared > in_all / 2, "most of what is played has to be compared"
    for unused in [each.name for each in EXPLANATIONS if not each.matched]:
        warnings.warn(f"differences.{unused} explains nothing any more", stacklevel=1)
