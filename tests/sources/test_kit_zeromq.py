"""The ZeroMQ source keeps the promises, in front of the sink of another gateway, whoever calls whom."""

import contextlib

import pytest

from bridge.sources.kit import CHECKS, PREFETCH
from bridge.sources.options import ZeromqSourceOptions
from bridge.sources.zeromq import ZeromqSource
from tests.servers import free_port
from tests.sinks.keyring import Keyring
from tests.sources.sender import Sender


class ZeromqRig:
    can_bury, can_reply = True, False
    routing_key = ""

    def __init__(self, *, bind, keyring=None):
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        ours, theirs = ("bind", "connect") if bind else ("connect", "bind")
        self.options = {ours: self.endpoint}
        about = {theirs: self.endpoint, "confirm_timeout": "60s"}
        if keyring:
            self.options["curve"] = keyring.options(bind=bind)
            about["curve"] = keyring.options(bind=not bind, who="receiver", receiver="gateway")
        self.sender = Sender(**about)

    def source(self):
        return ZeromqSource("doors", ZeromqSourceOptions.model_validate(self.options), PREFETCH, "plant-7")

    async def send(self, *messages):
        self.sender.send(*messages)

    async def cut(self):
        await self.sender.stop(bye=False)

    async def mend(self):
        self.sender.start()

    async def left(self):
        return len(self.sender.left)

    async def buried(self):
        return self.sender.refused


LONG = [pytest.param(how, marks=pytest.mark.long) for how in ("connect", "bind curve")]


@pytest.fixture(params=["bind", *LONG])
async def rig(request, tmp_path):
    keyring = Keyring(tmp_path) if "curve" in request.param else None
    rig = ZeromqRig(bind="bind" in request.param, keyring=keyring)
    rig.sender.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(rig.sender.stop)
        yield rig


@pytest.mark.parametrize("number", CHECKS)
async def test_promise(number, rig):
    await CHECKS[number](rig)
