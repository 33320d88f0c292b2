"""Keys for both ends of a ZeroMQ sink, as files, and the options that name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bridge.sinks.curve import Client, Server
from bridge.sinks.keys import Clients, make_key_files, read_key_pair, read_public_key


class Keyring:
    """A gateway and a receiver that know each other, and a stranger whom nobody knows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "keys"
        self.folder.mkdir()
        for name in ("gateway", "receiver", "stranger"):
            make_key_files(self.folder / name)

    def secret(self, name: str) -> Path:
        return self.folder / name

    def public(self, name: str) -> Path:
        return self.folder / f"{name}.pub"

    def options(self, *, bind: bool, who: str = "gateway", receiver: str = "receiver") -> dict[str, Any]:
        """`curve: …` of the sink."""
        theirs = "clients" if bind else "server_key"
        return {"secret_key": str(self.secret(who)), theirs: str(self.public(receiver))}

    def receiver(self, *, bind: bool, who: str = "receiver", gateway: str = "gateway") -> Client | Server:
        """The other end."""
        keys = read_key_pair(self.secret(who))
        if bind:
            return Server(keys, Clients(self.public(gateway)))
        return Client(keys, read_public_key(self.public(gateway)))

    def flags(self, *, bind: bool, who: str = "receiver", gateway: str = "gateway") -> list[str]:
        """The other end, as a command."""
        theirs = "--clients" if bind else "--server-key"
        return ["--secret-key", str(self.secret(who)), theirs, str(self.public(gateway))]
