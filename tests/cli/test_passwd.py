"""`edgespool passwd`: what it makes, what it keeps, and what it refuses to touch."""

import io
import os
import pty
import subprocess
import sys
import threading

import pytest

from bridge.cli.passwd import change_password
from bridge.config.users import read_users
from bridge.policy.password import make_line
from tests.cli.gateway import COMMAND, edgespool

BERT = make_line("bert", b"other", b"0123456789abcdef")


def passwd(file, user, password="secret\n", *flags, **more):
    return edgespool("passwd", str(file), user, *(flags or ("--stdin",)), input=password, **more)


def test_a_new_file_is_ours_alone_whatever_the_umask(tmp_path):
    file = tmp_path / "passwords"
    told = passwd(file, "anna", umask=0)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    assert file.stat().st_mode & 0o7777 == 0o600
    assert read_users(file)["anna"].verify(b"secret")
    assert os.listdir(tmp_path) == ["passwords"]


def test_only_the_user_that_was_named_is_changed(tmp_path):
    file = tmp_path / "passwords"
    before = f"# hall 1\r\n{BERT}\r\n\n#anna:was here\nanna:plain text, to be mended\n# end"
    file.write_bytes(before.encode())
    file.chmod(0o644)
    assert passwd(file, "anna", "new ü\n").returncode == 0
    kept, anna = file.read_bytes().decode().rstrip("\n").rsplit("\n", 1)
    assert kept == f"# hall 1\r\n{BERT}\r\n\n#anna:was here\n# end"
    assert anna.startswith("anna:$scrypt$")
    assert file.stat().st_mode & 0o7777 == 0o600
    users = read_users(file)
    assert users["anna"].verify("new ü".encode())
    assert users["bert"].verify(b"other")
    assert passwd(file, "anna", "", "--delete").returncode == 0
    assert file.read_bytes().decode() == kept + "\n"
    assert passwd(file, "bert", "", "--delete").returncode == 0
    assert read_users(file) == {}
    assert passwd(file, "carl", "x").returncode == 0
    assert list(read_users(file)) == ["carl"]


def test_a_group_that_may_read_it_still_may_and_a_link_stays_a_link(tmp_path):
    file, link = tmp_path / "passwords", tmp_path / "link"
    passwd(file, "anna")
    file.chmod(0o640)
    link.symlink_to(file)
    if os.geteuid() == 0:
        os.chown(file, 10_001, 10_002)
    assert passwd(link, "bert").returncode == 0
    assert link.is_symlink()
    assert file.stat().st_mode & 0o7777 == 0o640
    if os.geteuid() == 0:
        assert (file.stat().st_uid, file.stat().st_gid) == (10_001, 10_002)
    assert list(read_users(file)) == ["anna", "bert"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_a_new_file_in_the_folder_of_a_service_is_for_the_service_to_read(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, 10_001, 10_002)
    assert passwd(folder / "passwords", "anna").returncode == 0
    found = (folder / "passwords").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (10_001, 10_002, 0o600)


# user, flags, stdin, what is in the file → exit code, what is said
REFUSED = [
    ("an:na", ("--stdin",), "x", None, 2, "must not contain ':'"),
    ("", ("--stdin",), "x", None, 2, "needs a name"),
    ("#a", ("--stdin",), "x", None, 2, "comment"),
    ("a\nb", ("--stdin",), "x", None, 2, "control"),
    ("anna", ("--stdin",), "\n", None, 2, "empty password"),
    ("anna", ("--stdin",), "", None, 2, "empty password"),
    ("anna", ("--stdin",), "x" * 70_000, None, 2, "at most 65535"),
    ("anna", (), "x\nx\n", None, 2, "add --stdin"),
    ("anna", ("--delete",), "", None, 1, "no user 'anna'"),
    ("anna", ("--delete",), "", BERT, 1, "no user 'anna'"),
    ("anna", ("--stdin",), "x", "version: 1\n", 78, "passwords:1:1: the password stands there in plain"),
    ("anna", ("--stdin",), "x", f"{BERT}\ncarl:secret\n", 78, "passwords:2:1: "),
    ("anna", ("--delete",), "", f"anna:x\n{BERT}\ncarl:secret\n", 78, "passwords:3:1: "),
    ("anna", ("--stdin",), "x", "root:x:0:0:root:/root:/bin/bash\n", 78, "passwords:1:1: "),
]


@pytest.mark.parametrize(("user", "flags", "stdin", "there", "code", "says"), REFUSED)
def test_what_is_refused_changes_nothing(
    tmp_path, monkeypatch, capsys, user, flags, stdin, there, code, says
):
    file = tmp_path / "passwords"
    if there is not None:
        file.write_text(there)
        file.chmod(0o644)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
    told = change_password(file, user, delete="--delete" in flags, stdin="--stdin" in flags)
    assert told == code
    said = capsys.readouterr().err
    assert says in said
    assert "secret" not in said
    assert (file.read_text() if file.exists() else None) == there
    assert os.listdir(tmp_path) == ([] if there is None else ["passwords"])
    if there is not None:
        assert file.stat().st_mode & 0o7777 == 0o644


def test_no_folder_no_file(tmp_path):
    told = passwd(tmp_path / "none" / "passwords", "anna")
    assert told.returncode == 1
    assert "cannot be changed: No such file or directory" in told.stderr


def test_no_option_takes_a_password(tmp_path):
    told = edgespool("passwd", str(tmp_path / "p"), "anna", "hunter2")
    assert told.returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("second", "code"), [("pässword", 0), ("passwrd", 2)])
def test_at_a_terminal_it_is_asked_for_twice_and_not_shown(tmp_path, second, code):
    file = tmp_path / "passwords"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "passwd", str(file), "anna"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(theirs)
    shown = b""
    watchdog = threading.Timer(30, process.kill)
    watchdog.start()
    for prompt, typed in ((b"Password for anna: ", "pässword"), (b"Once more: ", second)):
        while prompt not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, typed.encode() + b"\n")
    assert process.wait() == code
    watchdog.cancel()
    while True:
        try:
            if not (more := os.read(ours, 1024)):
                break
        except OSError:
            break
        shown += more
    os.close(ours)
    assert second.encode() not in shown
    assert file.exists() == (code == 0)
    if code == 0:
        assert read_users(file)["anna"].verify("pässword".encode())
    else:
        assert b"not the same" in shown


def test_two_at_once_both_count(tmp_path):
    file = tmp_path / "passwords"
    running = [
        subprocess.Popen([*COMMAND, "passwd", str(file), f"u{n}", "--stdin"], stdin=subprocess.PIPE)
        for n in range(6)
    ]
    for process in running:
        process.communicate(b"secret")
        assert process.returncode == 0
    assert sorted(read_users(file)) == [f"u{n}" for n in range(6)]


def test_given_a_full_disk_then_the_old_file_stays(tmp_path):
    file = tmp_path / "passwords"
    passwd(file, "anna")
    before = file.read_bytes()
    # A bound on the size of files stands for the disk; Python ignores the signal that comes with it.
    limited = (
        "import resource, runpy, sys;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 10}, {len(before) + 10}));"
        "runpy.run_module('bridge.cli', run_name='__main__')"
    )
    told = subprocess.run(
        [sys.executable, "-c", limited, "passwd", str(file), "bert", "--stdin"],
        input="x",
        capture_output=True,
        text=True,
    )
    assert told.returncode == 1, told
    assert "File too large" in told.stderr
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["passwords"]
