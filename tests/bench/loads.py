"""What is sent: one line a load. A new load is a new line here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

__all__ = ["LOADS", "Load"]


@dataclass(frozen=True)
class Load:
    """N connections, each with W messages in flight, for as long as it is told.

    With QoS 0 nothing is answered; there every `window` messages are followed by a
    PINGREQ, four such runs are under way, and a run counts when its PINGRESP has come.
    `targets` is what ours should be at least, as a multiple of the other server.
    """

    name: str
    connections: int
    window: int
    qos: int = 1
    payload_bytes: int = 128
    targets: tuple[tuple[str, float], ...] = ()

    @property
    def title(self) -> str:
        ahead = f"{self.window} in flight" if self.qos else f"runs of {self.window}"
        return f"QoS {self.qos}, {self.connections} connections × {ahead}, {self.payload_bytes} bytes"

    def options(self) -> dict[str, Any]:
        return asdict(self)


LOADS: Final = (
    Load("qos1_50x20", 50, 20, targets=(("mosquitto", 1.0), ("amqtt", 10.0))),
    Load("qos1_50x1", 50, 1),
    Load("qos0_50", 50, 20, qos=0),
)
