"""A secret that everyone on the machine can read is none, and is not read."""

import os
import threading

import pytest

from bridge.private import check_private, read_private


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o660, 0o700])
def test_a_file_of_ours_is_read(tmp_path, mode):
    file = tmp_path / "secret"
    file.write_text("hunter2")
    file.chmod(mode)
    check_private(file)
    assert read_private(file, 7) == b"hunter2"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o666, 0o777, 0o602])
def test_a_file_that_everyone_reads_or_changes_is_refused_and_the_remedy_said(tmp_path, mode):
    file = tmp_path / "secret"
    file.write_text("hunter2")
    file.chmod(mode)
    link = tmp_path / "link"
    link.symlink_to(file)
    for path in (file, link):
        for look in (check_private, lambda path: read_private(path, 100)):
            with pytest.raises(ValueError, match=f"chmod 600 {path}"):
                look(path)


def test_what_cannot_be_read_says_why(tmp_path):
    check_private(tmp_path / "absent")
    for path, why in [
        (tmp_path / "absent", "No such file"),
        (tmp_path, "Is a directory"),
        ("/dev/zero", "longer than 10 bytes"),
    ]:
        with pytest.raises(ValueError, match=why):
            read_private(path, 10)


def test_a_pipe_is_read_to_its_end_and_one_without_a_writer_holds_nothing_up(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o666)
    assert read_private(pipe, 100) == b""
    reader, writer = os.pipe()
    late = threading.Timer(0.05, lambda: (os.write(writer, b"hunter2"), os.close(writer)))
    late.start()
    assert read_private(f"/dev/fd/{reader}", 100) == b"hunter2"
    late.join()
    os.close(reader)


def test_no_descriptor_is_left_behind(tmp_path):
    file = tmp_path / "secret"
    file.touch(mode=0o600)
    before = set(os.listdir("/proc/self/fd"))
    read_private(file, 1)
    for path in (tmp_path, "/dev/zero"):
        with pytest.raises(ValueError, match=path if path == "/dev/zero" else "directory"):
            read_private(path, 1)
    assert set(os.listdir("/proc/self/fd")) == before
