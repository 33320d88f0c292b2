"""Servers of the tests' own: started on free ports, in a folder of their own, and gone afterwards.

A binary that is missing skips at home and fails in CI: a test that quietly stopped
running protects nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

__all__ = ["Mosquitto", "RabbitCluster", "RabbitMQ", "TcpProxy", "binary", "free_port", "missing"]

_ESTABLISHED: Final = 1  # of struct tcp_info
_AT_ONCE: Final = struct.pack("ii", 1, 0)
_RABBITMQ_HOMES: Final = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/lib/rabbitmq/bin")


def missing(what: str) -> None:
    """Skip at home; fail where CI=true says that everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing; make test installs it")
    pytest.skip(f"{what} is missing")


def binary(name: str, *folders: str) -> str:
    """Return the path of an executable, or end the test as `missing` says."""
    path = os.pathsep.join([*folders, os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        missing(name)
    assert found is not None
    return found


@functools.cache
def _taken() -> set[int]:
    return set()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now and that this process has not given out before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _taken():
            _taken().add(port)
            return port


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


class _Server:
    """One child process in a session of its own, so that ending it ends its children and nobody else's."""

    START_S = 60.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def command(self) -> tuple[list[str], dict[str, str]]:
        raise NotImplementedError

    def start(self) -> None:
        """Afterwards the port answers."""
        command, environment = self.command()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + self.START_S
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{command[0]} did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it politely; afterwards it is gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, how)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
        self._process = None


class Mosquitto(_Server):
    """A mosquitto with nothing but one listener; `extra` is added to its configuration."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        super().__init__(folder)
        self._binary = binary("mosquitto")
        self._config = folder / "mosquitto.conf"
        # Without `user root` it would drop to a user who may not read the folder.
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\n{extra}\n", encoding="utf-8"
        )

    def command(self) -> tuple[list[str], dict[str, str]]:
        return [self._binary, "-c", str(self._config)], {}


class _Epmd(_Server):
    """Erlang's name server. Left to itself the node would start one that outlives it."""

    def command(self) -> tuple[list[str], dict[str, str]]:
        return [binary("epmd"), "-port", str(self.port), "-address", "127.0.0.1"], {}


class RabbitMQ(_Server):
    """A private RabbitMQ node, for root and for everyone else.

    Debian's wrapper insists on the user rabbitmq, so the script behind it is
    called. `url` is for guest; `disk_free_limit` and the like go into `extra`.
    """

    def __init__(
        self, folder: Path, extra: str = "", plugins: Sequence[str] = (), epmd: _Epmd | None = None
    ) -> None:
        super().__init__(folder)
        self._lends_epmd = epmd is not None  # who lends one, stops it
        self._epmd = epmd or _Epmd(folder / "epmd")
        self._server = binary("rabbitmq-server", *_RABBITMQ_HOMES)
        self._config = folder / "rabbitmq.conf"
        self._config.write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "disk_free_limit.absolute = 10MB\n"
            "log.console = true\nlog.console.level = warning\nlog.file = false\n"
            # The log of quorum queues would otherwise take half a gigabyte before it turns over.
            "raft.wal_max_size_bytes = 8388608\n" + extra + "\n",
            encoding="utf-8",
        )
        (folder / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n", encoding="utf-8")
        (folder / "empty").touch()
        self._environment = {
            "HOME": str(folder),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_PORT": str(self._epmd.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": str(folder / "empty"),
            "RABBITMQ_CONFIG_FILE": str(self._config.with_suffix("")),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced"),
            "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            # As under systemd the script then becomes the node, so that the pid we wait for is the node's.
            "RUNNING_UNDER_SYSTEMD": "true",
            # One node of a test needs neither all cores nor their busy waiting.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +A 8 -kernel inet_dist_use_interface {127,0,0,1}",
        }

    @property
    def name(self) -> str:
        """The node's, as Erlang knows it."""
        return f"t{self.port}@localhost"

    def configure(self, lines: str) -> None:
        """Add to its configuration; counts from the next start."""
        with self._config.open("a", encoding="utf-8") as config:
            config.write(lines)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def command(self) -> tuple[list[str], dict[str, str]]:
        return [self._server], self._environment

    def start(self) -> None:
        if self._epmd._process is None:
            self._epmd.start()
        super().start()

    def stop(self) -> None:
        super().stop()
        if not self._lends_epmd:
            self._epmd.stop()

    def rabbitmqctl(self, *arguments: str) -> str:
        """Slow (it starts a second Erlang): only for what AMQP itself cannot do."""
        ctl = binary("rabbitmqctl", *_RABBITMQ_HOMES)
        return subprocess.run(
            [ctl, *arguments],
            env={**os.environ, **self._environment},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout


class RabbitCluster:
    """Nodes that know each other; each of them can be killed and started again."""

    def __init__(self, folder: Path, count: int = 3) -> None:
        self._epmd = _Epmd(folder / "epmd")
        self.nodes = [RabbitMQ(folder / f"node-{number}", epmd=self._epmd) for number in range(count)]
        peers = "".join(
            f"cluster_formation.classic_config.nodes.{number} = {node.name}\n"
            for number, node in enumerate(self.nodes, 1)
        )
        for node in self.nodes:
            # Whoever comes second has to find the first: no luck is needed, so no waiting for it either.
            node.configure(
                "cluster_formation.peer_discovery_backend = classic_config\n"
                "cluster_formation.randomized_startup_delay_range.min = 0\n"
                "cluster_formation.randomized_startup_delay_range.max = 0\n" + peers
            )
            cookie = node.folder / ".erlang.cookie"
            cookie.write_text("EDGESPOOLTESTS")
            cookie.chmod(0o400)

    def start(self) -> None:
        """Afterwards every node knows all others."""
        for node in self.nodes:
            node.start()
        self.nodes[0].rabbitmqctl("await_online_nodes", str(len(self.nodes)))

    def stop(self) -> None:
        """Safe also when some of them are gone."""
        for node in self.nodes:
            node.stop()
        self._epmd.stop()


def _tcp_state(writer: asyncio.StreamWriter) -> int:
    """As the kernel sees the connection, also while nobody reads from it."""
    sock = writer.get_extra_info("socket")
    return int(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])


class TcpProxy:
    """A line between a client and a server that a test can cut, hold and slow down.

    `hold_up` and `hold_down` stop the bytes towards the server and towards the
    client; holding only `down` makes a far end that accepts and never confirms,
    holding both a black hole. What was held goes on afterwards, if its sender is still
    there. With a `context` it speaks TLS to its clients, and plainly to the server.
    """

    def __init__(
        self, server_port: int, server_host: str = "127.0.0.1", context: ssl.SSLContext | None = None
    ) -> None:
        self.port = free_port()
        self.context = context
        self.connections = 0
        self.heard = b""  # what clients said first
        self.cuts = 0
        self.bytes_per_s = 0.0  # zero: as fast as it goes
        self.delay_s = 0.0  # of every byte, in each direction; the line holds as many as that takes
        self._to = (server_host, server_port)
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._up.set()
        self._down.set()
        self._listener: asyncio.Server | None = None
        self._lines: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._listener = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=2**16, ssl=self.context
        )

    async def stop(self) -> None:
        """Refuse new connections and cut the present ones."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self.cut()

    async def cut(self) -> None:
        """Reset every present connection."""
        self.cuts += 1
        for line in self._lines:
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    def hold(self, *, up: bool, down: bool) -> None:
        (self._up.clear if up else self._up.set)()
        (self._down.clear if down else self._down.set)()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = asyncio.current_task()
        assert line is not None
        self._lines.add(line)
        self.connections += 1
        far_writer: asyncio.StreamWriter | None = None
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._to, limit=2**16)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, writer, far_writer, self._up))
                group.create_task(self._pump(far_reader, far_writer, writer, self._down))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            self._lines.discard(line)
            for end in filter(None, (writer, far_writer)):
                # Closed with this, a socket says RST and not FIN, whatever lies in its buffers.
                with contextlib.suppress(OSError, AttributeError):
                    end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                end.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        source: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
        flowing: asyncio.Event,
    ) -> None:
        if self.delay_s:
            await self._pump_late(reader, writer, flowing)
        while data := await reader.read(2**16):
            if flowing is self._up and len(self.heard) < 1024:
                self.heard += data[:64]
            if not flowing.is_set():
                await flowing.wait()
                # Whoever is gone sends nothing again, so what was held never arrives: as on a real line.
                if _tcp_state(source) != _ESTABLISHED:
                    break
            if self.bytes_per_s:
                await asyncio.sleep(len(data) / self.bytes_per_s)
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError  # one half closed: the other follows

    async def _pump_late(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event
    ) -> None:
        """As `_pump`, and everything arrives `delay_s` after it was sent, in the same pieces."""
        loop = asyncio.get_running_loop()
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def arrive() -> None:
            while True:
                at, data = await line.get()
                await asyncio.sleep(at - loop.time())
                await flowing.wait()
                writer.write(data)
                await writer.drain()

        async with asyncio.TaskGroup() as group:
            group.create_task(arrive())
            while data := await reader.read(2**16):
                line.put_nowait((loop.time() + self.delay_s, data))
            raise ConnectionResetError
