"""Configurations that have left other brokers open to everyone: here each one fails closed.

Row A6 of the list of faults. A start is refused, and no socket was opened; a reload
changes nothing, and what was forbidden before still is. Where a file is allowed to be
empty, it lets nobody in.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from bridge import app
from bridge.config import load
from bridge.config.rights import load_access
from bridge.errors import ConfigError
from bridge.mqtt.packet import Connack, Connect
from tests.broker.device import Device
from tests.pki import Authority
from tests.servers import free_port
from tests.users import quick_line, write_users

ANNA = quick_line("anna", b"secret")
REFUSED = 0x87


class Files:
    """A configuration that is closed: a user, a rule, and a listener that wants certificates. Then broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.tls_port = free_port(), free_port()
        self.users = write_users(folder / "passwords", {"anna": "secret"})
        self.rules = folder / "rules.yaml"
        self.rules.write_text("- {user: anna, publish: [a/#], subscribe: [a/#]}\n")
        authority = Authority(folder)
        pair = authority.server()
        self.key, self.certificate, self.ca = pair.key, pair.certificate, authority.certificate
        self.crl = authority.crl()
        self.other_key = Authority(folder, "other").server("other").key
        self.config = folder / "edgespool.yaml"
        self.config.write_text(
            "version: 1\n"
            "listeners:\n"
            f"  - {{mqtt: 127.0.0.1:{self.port}}}\n"
            f"  - {{mqtts: 127.0.0.1:{self.tls_port}, certificate: {self.certificate}, key: {self.key},"
            f" client_ca: {self.ca}, crl: {self.crl}}}\n"
            "access:\n"
            "  users: passwords\n"
            "  rules: rules.yaml\n"
            f"store: {{path: {folder}/spool}}\n"
            "sinks: {cloud: {memory: {}}}\n"
            "routes: {all: {from: '#', to: cloud}}\n"
            "web: off\n"
        )

    def say(self, before: str, after: str) -> None:
        text = self.config.read_text()
        assert before in text
        self.config.write_text(text.replace(before, after))


def _write(name: str, content: str | bytes) -> Callable[[Files], None]:
    def write(files: Files) -> None:
        data = content.encode() if isinstance(content, str) else content
        getattr(files, name).write_bytes(data)

    return write


def _say(before: str, after: str) -> Callable[[Files], None]:
    return lambda files: files.say(before, after)


def _remove(name: str) -> Callable[[Files], None]:
    return lambda files: getattr(files, name).unlink()


def _folder(name: str) -> Callable[[Files], None]:
    def swap(files: Files) -> None:
        getattr(files, name).unlink()
        getattr(files, name).mkdir()

    return swap


def _loop(name: str) -> Callable[[Files], None]:
    def swap(files: Files) -> None:
        getattr(files, name).unlink()
        getattr(files, name).symlink_to(getattr(files, name))

    return swap


def _mode(name: str, mode: int) -> Callable[[Files], None]:
    return lambda files: getattr(files, name).chmod(mode)


# What is done to the good configuration → what the report has to say.
BROKEN: dict[str, tuple[Callable[[Files], None], str]] = {
    "users: garbage": (_write("users", b"\x00\xff\x10garbage\n"), "not UTF-8"),
    "users: a password in plain text": (_write("users", "anna:secret\n"), "plain text"),
    "users: plain text behind a good line": (_write("users", f"{ANNA}\nbert:secret\n"), "passwords:2:1"),
    "users: a line without a password": (_write("users", "anna:\n"), "has no password"),
    "users: a line without a colon": (_write("users", f"{ANNA}\nanna\n"), "no ':'"),
    "users: a line without a name": (_write("users", ANNA.removeprefix("anna")), "needs a name"),
    "users: twice the same": (_write("users", f"{ANNA}\n{ANNA}\n"), "stands twice"),
    "users: cut off": (_write("users", ANNA[:-40]), "hash|base64"),
    "users: an unknown hash": (_write("users", "anna:$argon2id$v=19$m=65536,t=3,p=4$c2E$aGE\n"), "argon2id"),
    "users: a hash that eats the memory": (
        _write("users", "anna:$scrypt$ln=30,r=8,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA\n"),
        "64 MiB",
    ),
    "users: another kind of file": (_write("users", "listener 1883\nallow_anonymous true\n"), "no ':'"),
    "users: longer than any": (_write("users", b"#" * (16 * 1024 * 1024 + 1)), "longer than"),
    "users: missing": (_remove("users"), "No such file"),
    "users: a folder": (_folder("users"), "directory"),
    "users: a link to itself": (_loop("users"), "symbolic links"),
    "users: for everyone to read": (_mode("users", 0o644), "chmod 600"),
    "users: for everyone to change": (_mode("users", 0o602), "chmod 600"),
    "rules: empty": (_write("rules", ""), r"write \[\]"),
    "rules: only comments": (_write("rules", "# to do\n"), r"write \[\]"),
    "rules: garbage": (_write("rules", b"\x00\x01\x02"), "U\\+0000"),
    "rules: no text": (_write("rules", b"\xff\xfe\x00"), "not UTF-8"),
    "rules: not YAML": (_write("rules", "- {user: anna\n"), "not YAML"),
    "rules: no list": (_write("rules", "user: anna\n"), "list of rules"),
    "rules: of Mosquitto": (_write("rules", "user anna\ntopic readwrite #\n"), "list of rules"),
    "rules: an unknown key": (_write("rules", "- {user: anna, publsh: [a]}\n"), "did you mean 'publish'"),
    "rules: a wrong type": (_write("rules", "- {user: anna, publish: a}\n"), "must be a list"),
    "rules: no filter": (_write("rules", "- {user: anna, publish: ['a/#/b']}\n"), "last level"),
    "rules: an unknown placeholder": (_write("rules", "- {publish: ['{name}/#']}\n"), "known are"),
    "rules: a key twice": (_write("rules", "- {user: anna, user: '*', publish: ['#']}\n"), "stands twice"),
    "rules: a second document": (_write("rules", "[]\n---\n- {publish: ['#']}\n"), "second document"),
    "rules: missing": (_remove("rules"), "No such file"),
    "rules: a folder": (_folder("rules"), "directory"),
    "rules: for everyone to change": (_mode("rules", 0o666), "changed by everyone"),
    "access: empty": (
        _say("access:\n  users: passwords\n  rules: rules.yaml\n", "access:\n"),
        "has no value",
    ),
    "access: misspelt": (_say("access:", "acces:"), "did you mean 'access'"),
    "access: users without a name": (_say("users: passwords", "users:"), "has no value"),
    "access: users misspelt": (_say("users: passwords", "user: passwords"), "did you mean 'users'"),
    "access: rules without a name": (_say("rules: rules.yaml", "rules: ''"), "name of a file"),
    "access: rules are no list": (_say("rules: rules.yaml", "rules: {user: anna}"), "must be a list"),
    "anonymous: a word": (_say("}\n  - {mqtts", ", anonymous: yes}\n  - {mqtts"), "write true"),
    "outside, and nobody asked": (
        lambda files: (
            files.say("mqtt: 127.0.0.1:", "mqtt: 0.0.0.0:"),
            files.say("  users: passwords\n", ""),
        )[0],
        "nothing says who may come in",
    ),
    "client_ca: empty": (_write("ca", ""), "is empty"),
    "client_ca: garbage": (_write("ca", "garbage"), "no PEM block"),
    "client_ca: a broken certificate": (
        _write("ca", "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"),
        "PEM",
    ),
    "client_ca: missing": (_remove("ca"), "cannot be read"),
    "client_ca: a folder": (_folder("ca"), "cannot be read"),
    "client_ca: not named": (_say(", client_ca: ", ", client_cas: "), "unknown key 'client_cas'"),
    "crl: empty": (_write("crl", ""), "is empty"),
    "crl: garbage": (_write("crl", "garbage"), "no PEM block"),
    "crl: missing": (_remove("crl"), "cannot be read"),
    "key: empty": (_write("key", ""), "is empty"),
    "key: missing": (_remove("key"), "cannot be read"),
    "key: for everyone to read": (_mode("key", 0o644), "chmod 600"),
    "key: of another certificate": (
        lambda files: files.key.write_bytes(files.other_key.read_bytes()) and None,
        "not the key of",
    ),
}


def _listening() -> set[int]:
    found = psutil.Process().net_connections("tcp")
    return {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_there_are_more_than_25_of_them() -> None:
    assert len(BROKEN) >= 25


async def _run(files: Files) -> None:
    gateway = app.Gateway(load(files.config))
    await gateway.start()
    await gateway.stop()


async def test_the_good_one_starts(files: Files) -> None:
    await _run(files)


@pytest.mark.parametrize("what", BROKEN)
async def test_given_it_at_the_start_then_nothing_starts_and_the_file_is_named(
    files: Files, what: str
) -> None:
    break_it, says = BROKEN[what]
    break_it(files)
    before = _listening()
    with pytest.raises(ConfigError, match=says) as caught:
        await _run(files)
    assert _listening() == before
    assert str(files.folder) in str(caught.value), "it says which file"
    assert "secret" not in str(caught.value).replace("hold a secret", "")


async def _answer(files: Files, user: str | None, password: bytes | None) -> int:
    device = Device(files.port)
    await device.open()
    device.send(Connect("c", 5, user_name=user, password=password))
    try:
        return (await device.expect(Connack)).reason
    finally:
        device.drop()


async def _is_closed(files: Files) -> None:
    """Whatever else: nobody gets in without a password, and rules hold."""
    assert await _answer(files, None, None) == REFUSED
    assert await _answer(files, "anna", b"wrong") == REFUSED
    assert await _answer(files, "bert", b"secret") == REFUSED
    anna = Device(files.port)
    await anna.open()
    anna.send(Connect("anna", 5, user_name="anna", password=b"secret"))
    assert (await anna.expect(Connack)).reason == 0
    assert (await anna.published("a/x")).reason in (0, 0x10)
    assert (await anna.published("secret")).reason == REFUSED
    anna.drop()


async def test_given_it_at_a_reload_then_everything_stays_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One gateway, and every one of them after the other."""
    running = Files(tmp_path / "running")
    running.say("version: 1\n", "version: 1\nlimits: {failed_logins: 10000}\n")
    gateway = app.Gateway(load(running.config))
    await gateway.start()
    try:
        for number, (what, (break_it, says)) in enumerate(BROKEN.items()):
            files = Files(tmp_path / str(number))
            # The same listeners as those that are open, or they would be for a restart to change.
            files.say(f":{files.port}}}", f":{running.port}}}")
            files.say(f":{files.tls_port},", f":{running.tls_port},")
            break_it(files)
            caplog.clear()
            with caplog.at_level(logging.ERROR):
                app._reload(gateway, lambda path=files.config: load(path))
            assert "not reloaded" in caplog.text, what
            with pytest.raises(ConfigError, match=says):
                gateway.reload(load(files.config))
            await _is_closed(running)
    finally:
        await gateway.stop()


@pytest.mark.parametrize("text", ["", "\n\n", "# nobody yet\n"], ids=["empty", "blank", "only comments"])
async def test_an_empty_password_file_lets_nobody_in(files: Files, text: str) -> None:
    files.users.write_text(text)
    gateway = app.Gateway(load(files.config))
    await gateway.start()
    try:
        assert await _answer(files, None, None) == REFUSED
        for user, password in [("anna", b"secret"), ("anna", b""), ("", b""), ("x", b"x")]:
            assert await _answer(files, user, password) == REFUSED
    finally:
        await gateway.stop()


@contextlib.contextmanager
def _no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.open("/dev/null", os.O_RDONLY)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_given_no_descriptor_left_then_a_reload_changes_nothing(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """HA's add-on took the lack of descriptors for an empty file, and its defaults for the answer."""
    files.say("version: 1\n", "version: 1\nlimits: {failed_logins: 10000}\n")
    gateway = app.Gateway(load(files.config))
    await gateway.start()
    config = gateway.config
    try:
        with _no_descriptor_left():
            app._reload(gateway, lambda: load(files.config))
            app._reload(gateway, lambda: config)  # and where the configuration itself could still be read
            with pytest.raises(ConfigError, match="Too many open files"):
                load_access(config)
        assert caplog.text.count("not reloaded") >= 2
        assert "Too many open files" in caplog.text
        await _is_closed(files)
    finally:
        await gateway.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a moment")
@pytest.mark.parametrize("name", ["users", "rules"])
async def test_given_a_file_that_we_may_not_read_then_it_is_not_taken_for_an_empty_one(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to everybody else
        os.chmod(folder, 0o711)
        _look_as_somebody_else(Files(Path(folder)), name)


def _look_as_somebody_else(files: Files, name: str) -> None:
    config = load(files.config)
    for each in ("users", "rules"):
        getattr(files, each).chmod(0o600)
        os.chown(getattr(files, each), 65_534, 65_534)
    os.chown(getattr(files, name), 0, 0)
    os.seteuid(65_534)
    try:
        with pytest.raises(ConfigError, match="Permission denied") as caught:
            load_access(config)
    finally:
        os.seteuid(0)
    assert str(getattr(files, name)) in str(caught.value)


async def test_given_a_reload_that_fails_while_devices_log_in_then_none_is_let_in_by_it(files: Files) -> None:
    gateway = app.Gateway(load(files.config))
    await gateway.start()
    try:
        asked = [asyncio.ensure_future(_answer(files, "anna", b"wrong %d" % n)) for n in range(20)]
        await asyncio.sleep(0)
        files.users.write_text("anna:secret\n")
        app._reload(gateway, lambda: load(files.config))
        assert set(await asyncio.gather(*asked)) == {REFUSED}
    finally:
        await gateway.stop()
