"""Somebody tries passwords, 500 a second: the others do not notice, and time tells no names.

Row A7 of the list of faults, with hashes of the real cost.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import sys
import time
from pathlib import Path

import pytest

from bridge.mqtt.codec import decode, encode
from bridge.mqtt.packet import PINGREQ, Connack, Connect, Pingresp
from bridge.policy.password import make_line
from tests.broker.device import Device
from tests.faults.guesser import login
from tests.gateway import Gateway

PER_SECOND = 500
REFUSED, BUSY, TOO_OFTEN = 0x87, 0x89, 0x9F
USERS = {f"user-{number}": f"password-{number}" for number in range(20)}


def _gateway(folder: Path, **limits: int) -> Gateway:
    folder.mkdir(parents=True, exist_ok=True)
    users = folder / "passwords"
    users.touch(0o600)
    salts = (number.to_bytes(16) for number in range(len(USERS)))
    lines = [make_line(user, password.encode(), next(salts)) for user, password in USERS.items()]
    users.write_text("\n".join(lines))
    return Gateway(folder, access={"users": str(users)}, limits=limits)


@pytest.mark.long
@pytest.mark.alone
async def test_given_500_guesses_a_second_then_the_others_do_not_notice(tmp_path: Path) -> None:
    gateway = _gateway(tmp_path)
    gateway.start()
    try:
        known = await login(gateway.port, "user-1", USERS["user-1"])
        assert known[0] == 0
        device = Device(gateway.port)
        await device.open()
        device.send(Connect("pinging", 5, user_name="user-1", password=USERS["user-1"].encode()))
        assert (await device.expect(Connack)).reason == 0

        seconds = 10.0
        command = [
            sys.executable,
            "-m",
            "tests.faults.guesser",
            str(gateway.port),
            str(PER_SECOND),
            str(seconds),
        ]
        # In a process of its own: what it costs to guess is not what the gateway makes others wait.
        guesser = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        guessing = asyncio.ensure_future(guesser.communicate())
        pings: list[float] = []
        fresh: list[tuple[int, float]] = []
        again: list[tuple[int, float]] = []
        users = iter(list(USERS)[2:])
        turn = 0
        while not guessing.done():
            began = time.perf_counter()
            device.send(PINGREQ)
            await device.expect(Pingresp)
            pings.append(time.perf_counter() - began)
            if turn % 50 == 0 and (user := next(users, None)) is not None:
                # From elsewhere and never seen before: it has to be hashed.
                fresh.append(await login(gateway.port, user, USERS[user], "127.0.0.2"))
                # From where the guesses come, but known.
                again.append(await login(gateway.port, "user-1", USERS["user-1"]))
            turn += 1
            await asyncio.sleep(0.01)
        counts = {int(reason): count for reason, count in json.loads((await guessing)[0]).items()}
        device.drop()
        assert sum(counts.values()) >= 0.8 * PER_SECOND * seconds, counts
        assert set(counts) <= {REFUSED, TOO_OFTEN, BUSY}, counts  # busy: more of them than may wait
        # 30 at once and one more each second: nothing else of all that was hashed.
        assert counts[REFUSED] <= 30 + seconds + 2, counts
        p99 = statistics.quantiles(pings, n=100)[98]
        assert p99 <= 0.050, f"{p99 * 1000:.1f} ms"
        assert len(fresh) >= 10
        assert {reason for reason, _ in fresh + again} == {0}
        assert max(took for _, took in fresh + again) <= 2.0
    finally:
        gateway.kill()


@pytest.mark.long
@pytest.mark.alone
async def test_the_time_of_an_answer_tells_no_names(tmp_path: Path) -> None:
    gateway = _gateway(tmp_path, failed_logins=100_000)
    gateway.start()
    try:
        there: list[float] = []
        absent: list[float] = []
        await login(gateway.port, "user-1", "warm")
        for number in range(200):
            # Side by side, so that whatever else the machine does hits both alike.
            pair = [(there, f"user-{number % 20}"), (absent, f"nobody-{number}")]
            for times, user in pair if number % 2 else reversed(pair):
                reason, took = await login(gateway.port, user, f"guess-{number}")
                assert reason == REFUSED
                times.append(took)
        # The quick quarter of each: it has the least in it that is not ours.
        one, other = (statistics.quantiles(times, n=4)[0] for times in (there, absent))
        assert abs(one - other) / max(one, other) <= 0.05, (one, other)
        assert min(one, other) > 0.005, "both were hashed"
    finally:
        gateway.kill()


def test_a_guess_costs_one_read_and_no_file(tmp_path: Path) -> None:
    """What is refused by rate is refused at once, and leaves nothing behind."""
    gateway = _gateway(tmp_path, failed_logins=1)
    gateway.start()
    try:
        answers = []
        for number in range(50):
            with socket.create_connection(("127.0.0.1", gateway.port)) as sock:
                sock.sendall(encode(Connect("c", 5, user_name="user-1", password=b"%d" % number), 5))
                sock.settimeout(10)
                found = decode(sock.recv(1024), 5)
                assert found is not None
                assert isinstance(found[0], Connack)
                answers.append(found[0].reason)
                assert sock.recv(1) == b""
        assert answers[0] == REFUSED
        assert answers.count(REFUSED) <= 10
        assert set(answers) == {REFUSED, TOO_OFTEN}
        assert gateway.status()["mqtt"]["sessions"] == 0
    finally:
        gateway.kill()
