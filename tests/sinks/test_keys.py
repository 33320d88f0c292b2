"""Key files: who may read them, what stands in them, and what an operator is told."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest
import zmq

from bridge.errors import ConfigError
from bridge.sinks.keys import Clients, make_key_files, read_key_pair, read_public_key

A, B = (zmq.curve_keypair()[0].decode() for _ in range(2))


def test_a_pair_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "hall.key"
    public = make_key_files(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (tmp_path / "hall.key.pub").read_text() == f"{public} hall\n"
    pair = read_key_pair(path)
    assert pair.public.decode() == public
    assert pair.public == read_public_key(tmp_path / "hall.key.pub")
    assert pair.secret.decode() not in repr(pair) + str(pair)


@pytest.mark.parametrize("there", ["hall.key", "hall.key.pub"])
def test_a_key_in_use_is_not_written_over(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("in use")
    with pytest.raises(ConfigError, match=f"{there} is there already"):
        make_key_files(tmp_path / "hall.key")
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "in use"


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666, 0o777])
def test_a_secret_that_everyone_can_read_is_none(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "hall.key"
    make_key_files(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        read_key_pair(path)
    path.chmod(0o600)
    assert read_key_pair(path)


# systemd hands credentials over with an ACL, which shows as the bits of the group.
def test_a_group_may_be_allowed_to_read_it(tmp_path: Path) -> None:
    path = tmp_path / "hall.key"
    make_key_files(path)
    path.chmod(0o440)
    assert read_key_pair(path)


NO_KEYS = {
    "empty": b"",
    "short": A[:39].encode(),
    "long": A.encode() + b"x",
    "not Z85": b"~" * 40,
    "too large for 32 bytes": b"#" * 40,
    "not text": b"\xff" * 40,
    "a certificate": b"-----BEGIN CERTIFICATE-----\n",
    "endless": b"x" * (1 << 20) + b"y",
}


@pytest.mark.parametrize("content", NO_KEYS.values(), ids=NO_KEYS)
def test_what_is_no_key_is_said_without_showing_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    for read in (read_key_pair, read_public_key):
        with pytest.raises(ConfigError) as raised:
            read(path)
        assert str(path) in str(raised.value)
        assert content[:20].decode(errors="replace") not in str(raised.value) or not content


@pytest.mark.parametrize("read", [read_key_pair, read_public_key, Clients])
def test_a_missing_file_is_named(tmp_path: Path, read: object) -> None:
    assert callable(read)
    with pytest.raises(ConfigError, match=r"nothing cannot be read: No such file"):
        read(tmp_path / "nothing")


def test_one_public_key_means_one(tmp_path: Path) -> None:
    (tmp_path / "two").write_text(f"{A}\n{B}\n")
    with pytest.raises(ConfigError, match=r"must hold one public key, such as the \.pub file"):
        read_public_key(tmp_path / "two")


def test_clients_are_a_file_with_a_key_a_line(tmp_path: Path) -> None:
    (tmp_path / "clients").write_text(f"# the halls\n{A} hall 3\n\n{B}\n")
    clients = Clients(tmp_path / "clients")
    assert (clients.name_of(A), clients.name_of(B), clients.name_of("x" * 40)) == ("hall 3", "", None)


def test_clients_are_a_folder_of_public_keys(tmp_path: Path) -> None:
    (tmp_path / "a.pub").write_text(A)
    (tmp_path / "b.pub").write_text(f"{B} hall-4")
    (tmp_path / "b.key").write_text("a secret key has no business here, and is not looked at")
    assert len(Clients(tmp_path)) == 2


# 84 · 85⁴ is more than 32 bits hold: what looks like a comment is never a key.
def test_no_key_begins_with_the_sign_of_a_comment(tmp_path: Path) -> None:
    (tmp_path / "clients").write_text("#" + "0" * 39)
    assert len(Clients(tmp_path / "clients")) == 0
    (tmp_path / "key").write_text("#" + "0" * 39)
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(ConfigError, match="does not begin with a key"):
        read_key_pair(tmp_path / "key")


def test_a_line_that_is_neither_is_named_and_nobody_is_let_in(tmp_path: Path) -> None:
    (tmp_path / "clients").write_text(f"{A}\nhall 3: {B}\n")
    with pytest.raises(ConfigError, match="clients:2: must begin with a key of 40 characters"):
        Clients(tmp_path / "clients")


def test_a_list_that_everyone_can_write_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "clients").write_text(A)
    (tmp_path / "clients").chmod(0o666)
    with pytest.raises(ConfigError, match="everyone may write it: chmod 644"):
        Clients(tmp_path / "clients")


def test_an_empty_list_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "clients").write_text("")
    assert Clients(tmp_path / "clients").name_of(A) is None


def test_who_is_added_or_taken_away_counts_within_a_second(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    path = tmp_path / "clients"
    path.write_text(A)
    clients = Clients(path, lambda: now)
    path.write_text(B)
    assert clients.name_of(A) == ""
    now = 1.0
    assert (clients.name_of(A), clients.name_of(B)) == (None, "")
    with caplog.at_level(logging.ERROR):
        for spoilt in ("nonsense", "nonsense", "other nonsense"):
            now += 1.0
            path.write_text(spoilt)
            assert clients.name_of(B) is None
    assert len(caplog.records) == 1, "said once"
    now = 5.0
    path.write_text(B)
    assert clients.name_of(B) == ""
