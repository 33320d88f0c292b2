"""The ZeroMQ sink keeps the promises, whoever calls whom, with keys and without."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.sinks.kit import CHECKS
from tests.servers import free_port
from tests.sinks.keyring import Keyring
from tests.sinks.rigs import ZeromqRig, ipc


@pytest.fixture(params=["bind tcp", "connect tcp", "bind ipc", "connect ipc", "bind curve", "connect curve"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ZeromqRig]:
    how, transport = request.param.split()
    keyring = Keyring(tmp_path) if transport == "curve" else None
    endpoint = f"tcp://127.0.0.1:{free_port()}" if transport != "ipc" else ipc(tmp_path)
    rig = ZeromqRig(endpoint, bind=how == "bind", keyring=keyring)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(rig.end)
        yield rig


@pytest.mark.parametrize("number", CHECKS)
async def test_promise(number: int, rig: ZeromqRig) -> None:
    await CHECKS[number](rig)
