"""The ZeroMQ sink keeps the promises, whoever calls whom."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.sinks.kit import CHECKS
from tests.servers import free_port
from tests.sinks.rigs import ZeromqRig, ipc


@pytest.fixture(params=["bind tcp", "connect tcp", "bind ipc", "connect ipc"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ZeromqRig]:
    how, transport = request.param.split()
    endpoint = f"tcp://127.0.0.1:{free_port()}" if transport == "tcp" else ipc(tmp_path)
    rig = ZeromqRig(endpoint, bind=how == "bind")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(rig.end)
        yield rig


@pytest.mark.parametrize("number", CHECKS)
async def test_promise(number: int, rig: ZeromqRig) -> None:
    await CHECKS[number](rig)
