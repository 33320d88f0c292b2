"""What the devices were told, against what the far end has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.house.device import Device

__all__ = ["Verdict", "judge"]


class Verdict:
    """`repeated` arrivals under a known id, and payloads `again` under another id, both counted."""

    def __init__(self, arrived: int, repeated: int, again: int) -> None:
        self.arrived = arrived
        self.repeated = repeated
        self.again = again

    def __str__(self) -> str:
        return f"{self.arrived:,} arrived, {self.repeated:,} repeated, {self.again:,} under a second id"


def judge(
    arrivals: Iterable[tuple[str, str]], devices: Sequence[Device], *, in_order: bool = True
) -> Verdict:
    """Fail unless every acknowledged message arrived, in the order of its device, one id for one content.

    `arrivals` are (message id, payload). A payload may come under as many ids as its
    device has sent it: nobody can tell two messages from one that was sent again.
    """
    contents: dict[str, str] = {}
    ids: dict[str, list[str]] = defaultdict(list)
    numbers: dict[str, list[int]] = defaultdict(list)
    repeated = 0
    for message_id, payload in arrivals:
        assert contents.setdefault(message_id, payload) == payload, f"{message_id} carries two contents"
        if message_id in ids[payload]:
            repeated += 1
            continue
        if not ids[payload]:
            name, _, number = payload.partition(":")
            numbers[name].append(int(number))
        ids[payload].append(message_id)
    for device in devices:
        lost = {f"{device.name}:{number}" for number in device.acknowledged} - ids.keys()
        assert not lost, (
            f"{len(lost)} acknowledged messages of {device.name} are lost, such as {sorted(lost)[:5]}"
        )
        assert not in_order or numbers[device.name] == sorted(numbers[device.name]), (
            f"{device.name} is out of order"
        )
        for number in numbers[device.name]:
            seen = ids[f"{device.name}:{number}"]
            assert len(seen) <= device.sent[number], f"sent {device.sent[number]} times, stored as {seen}"
    return Verdict(len(ids), repeated, sum(len(each) - 1 for each in ids.values()))
