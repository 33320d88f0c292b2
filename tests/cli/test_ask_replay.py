"""`edgespool replay`: asked through the folder of the store, done by the gateway that runs on it."""

import asyncio
import json
import os
from importlib import import_module

import pytest
from paho.mqtt.publish import multiple
from typer.testing import CliRunner

from bridge.cli import app
from tests.gateway import configuration, port_of, running, sink_of, until

COMMAND = import_module("bridge.cli.replay")  # `bridge.cli` has a function of that name
STORE = {"max_bytes": "16MiB", "keep": "24h"}


async def ask(folder, *flags, config=True):
    file = folder / "plant.yaml"
    store = {"path": str(folder / "spool")} | STORE
    file.write_text(json.dumps(configuration(folder, store=store)))
    result = await asyncio.to_thread(CliRunner().invoke, app, ["replay", str(file), *flags])
    return result


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr("bridge.forward.clerk.LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(COMMAND, "POLL_S", 0.01)


async def test_a_running_gateway_sends_again_and_says_how_many(tmp_path):
    store = {"path": str(tmp_path / "spool")} | STORE
    async with running(tmp_path, store=store) as gateway:
        sink = sink_of(gateway)
        messages = [("a", str(number), 1, False) for number in range(50)]
        await asyncio.to_thread(multiple, messages, "127.0.0.1", port_of(gateway))
        await until(lambda: len(sink.received) == 50 and gateway.status().routes["all"].backlog_bytes == 0)
        result = await ask(tmp_path, "--route", "all", "--since", "1h")
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("50 messages sent\n  arrived   2")
        assert [each.id for each in sink.received[50:]] == [each.id for each in sink.received[:50]]
        assert all(each.replayed for each in sink.received[50:])
        assert (await ask(tmp_path, "--route", "all", "--since", "2h", "--until", "1h")).stdout.startswith(
            "0 mess"
        )
        result = await ask(tmp_path, "--route", "every", "--since", "1h")
        assert result.exit_code == 1
        assert "there is no route 'every'; there are all" in result.stderr
        result = await ask(tmp_path, "--route", "all", "--since", "1h", "--no-wait")
        assert "has begun" in result.stdout
        await until(lambda: len(sink.received) == 150)


async def test_without_a_running_gateway_nothing_is_left_for_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(COMMAND, "TAKE_WAIT_S", 0.05)
    result = await ask(tmp_path, "--route", "all", "--since", "1h")  # none ever ran here
    assert (result.exit_code, "no gateway is running on the store" in result.stderr) == (1, True)
    async with running(tmp_path):
        await until((tmp_path / "spool" / "replays").is_dir)
    result = await ask(tmp_path, "--route", "all", "--since", "1h")  # and now it is gone
    assert (result.exit_code, "no gateway is running on the store" in result.stderr) == (1, True)
    assert os.listdir(tmp_path / "spool" / "replays") == []


async def test_ctrl_c_stops_the_replay(tmp_path, monkeypatch):
    store = {"path": str(tmp_path / "spool")} | STORE
    async with running(tmp_path, store=store) as gateway:
        sink = sink_of(gateway)
        await asyncio.to_thread(multiple, [("a", "1", 1, False)], "127.0.0.1", port_of(gateway))
        await until(lambda: sink.received and gateway.status().routes["all"].backlog_bytes == 0)
        sink.pause()

        def interrupted(self, name):
            raise KeyboardInterrupt

        monkeypatch.setattr("bridge.forward.orders.Desk.outcome", interrupted)
        result = await ask(tmp_path, "--route", "all", "--since", "1h")
        assert (result.exit_code, "stopped" in result.stderr) == (1, True)
        await until(lambda: os.listdir(tmp_path / "spool" / "replays") == [])
        sink.resume()
        assert len(sink.received) == 1


@pytest.mark.parametrize("missing", [["--since", "1h"], ["--route", "all"]])
async def test_a_replay_needs_a_route_and_a_time(tmp_path, missing):
    assert (await ask(tmp_path, *missing)).exit_code == 2
