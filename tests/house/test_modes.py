"""Nobody else on the machine reads what a gateway keeps: the mode of every file and folder it makes.

Row P2 of the list of faults; in others the store lay open to everyone (CVE-2017-9868).
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from tests.broker.device import Device
from tests.gateway import until
from tests.house.shipped import Shipped

# With this umask a program gets exactly the modes that it asks for.
CARELESS = ("sh", "-c", 'umask 0; exec "$@"', "sh")


def _modes(folder: Path) -> dict[str, str]:
    """Everything below a folder, and the folder, that is not ours alone."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        mode = path.lstat().st_mode
        wanted = 0o700 if stat.S_ISDIR(mode) else 0o600
        if stat.S_IMODE(mode) != wanted or not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            found[str(path.relative_to(folder.parent))] = stat.filemode(mode)
    return found


async def test_given_a_careless_umask_then_all_that_a_gateway_makes_is_its_own_alone(tmp_path: Path) -> None:
    gateway = Shipped(tmp_path / "above" / "house", before=CARELESS)
    gateway.start()
    try:
        device = await Device.connect(gateway.port, "sleeper", expiry_s=3600)
        await device.subscribe("a/#", qos=2)
        device.publish("a/b", b"kept", 1, 1, retain=True)
        device.publish("a/b", b"twice", 2, 2)
        await until(lambda: gateway.status()["mqtt"]["acknowledged"] >= 2)
        device.drop()
        await until(lambda: list(gateway.state.rglob("*.cur")))
        gateway.kill()
        # A torn end, so that the copy of what was cut off is made too.
        (segment,) = (gateway.state / "uplink").glob("*.seg")
        with segment.open("r+b") as file:
            content = file.read()
            file.seek(len(content.rstrip(b"\0")) - 1)
            file.write(b"\xff")
        gateway.start()
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    names = {path.name for path in gateway.state.rglob("*")}
    assert {"uplink", "downlink", "dead", "tables", "lock", "cursors"} <= names
    assert list((gateway.state / "damaged").iterdir()), "a copy was made of what was cut off"
    assert _modes(gateway.state) == {}


def test_given_a_careless_umask_then_the_files_that_commands_make_are_ours_alone(tmp_path: Path) -> None:
    command = [*CARELESS, sys.executable, "-m", "bridge.cli"]
    subprocess.run(
        [*command, "passwd", str(tmp_path / "passwords"), "anna", "--stdin"], input=b"secret", check=True
    )
    subprocess.run([*command, "keygen", str(tmp_path / "key")], check=True, capture_output=True)
    assert sorted(os.listdir(tmp_path)) == ["key", "key.pub", "passwords"]
    for name in ("key", "passwords"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, name
