"""`edgespool import mosquitto`, as somebody types it."""

import subprocess
import sys

import pytest


def edgespool(*args, cwd):
    return subprocess.run(
        [sys.executable, "-m", "bridge.cli", *map(str, args)],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_what_is_printed_is_valid_and_the_notes_are_on_stderr_too(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "m.conf").write_text(
        "listener 1883\nlog_type all\nallow_anonymous true\nacl_file acl\n"
    )
    (tmp_path / "acl").write_text("pattern readwrite plant/%u/#\n")
    done = edgespool("import", "mosquitto", "etc/m.conf", cwd=tmp_path)
    assert done.returncode == 0
    notes = done.stderr.splitlines()
    assert any(note.startswith("etc/m.conf:2 log_type all: the log goes to stderr") for note in notes)
    assert all(f"#   {note}" in done.stdout for note in notes[:-1])
    (tmp_path / "plant.yaml").write_text(done.stdout)
    checked = edgespool("validate", "plant.yaml", cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "mqtt://0.0.0.0:1883" in checked.stdout


def test_a_mistake_leaves_with_78_and_prints_no_yaml(tmp_path):
    (tmp_path / "m.conf").write_text("listener 1883\nallow_anonymus true\n")
    done = edgespool("import", "mosquitto", "m.conf", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == (
        "m.conf:2: 'allow_anonymus' is not a setting of Mosquitto 2; did you mean 'allow_anonymous'?\n"
    )


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--port", "1999"), "  - {mqtt: 127.0.0.1:1999, anonymous: true}"),
        (("--as", "2.1"), "  packet_bytes: 2000000B"),
        (("--directory", "/srv"), "access: {users: /srv/passwd}"),
    ],
)
def test_flags_stand_for_what_the_file_does_not_say(tmp_path, flags, line):
    (tmp_path / "m.conf").write_text("password_file passwd\n")
    done = edgespool("import", "mosquitto", *flags, "m.conf", cwd=tmp_path)
    assert line in done.stdout.splitlines()


def test_another_version_is_refused(tmp_path):
    (tmp_path / "m.conf").write_text("")
    assert edgespool("import", "mosquitto", "--as", "3.0", "m.conf", cwd=tmp_path).returncode == 2
