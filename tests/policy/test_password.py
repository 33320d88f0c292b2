"""Lines of a password file: the ones that prove something, and all the others."""

import hashlib
import shutil
import subprocess
from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.policy.password import Password, check_user, decoy, make_line, parse_line
from tests.servers import missing

SALT = b"0123456789abcdef"
OURS = make_line("anna", b"secret", SALT)
S12 = b64encode(b"s" * 12).decode()
H64 = b64encode(b"h" * 64).decode()


def test_what_we_make_is_read_and_proves_that_password_only():
    read = parse_line(OURS)
    assert read.user == "anna"
    assert read.verify(b"secret")
    assert not any(read.verify(wrong) for wrong in (b"", b"secret ", b"Secret", b"\0secret", SALT))
    assert not read.weak


def test_the_form_is_the_one_that_other_programs_read():
    digest = hashlib.scrypt(b"secret", salt=SALT, n=16_384, r=8, p=1, dklen=32)
    spelled = [b64encode(data).decode().rstrip("=") for data in (SALT, digest)]
    assert f"anna:$scrypt$ln=14,r=8,p=1${'$'.join(spelled)}" == OURS


@pytest.mark.parametrize("salt", [b"0123456789abcdef", b"another salt....", bytes(16)])
def test_a_password_with_any_bytes_comes_back(salt):
    for password in (b"x", b"\0\xff", "pässwörd €".encode(), b"p" * 65_535):
        assert parse_line(make_line("u", password, salt)).verify(password)


# Made by Debian's mosquitto_passwd 2.0.11, for the password `pw`.
MOSQUITTO = [
    "u1:$7$101$T8MY2pnm77vxiutF$J8n7qr/X0kzP2Is9mrya5imOcmPzj6kuKIUT+OJn7oh16yVqtQ8Gzm5UFKeCIOeFlaaBgIbDt8XiGbRnSeO/HA==",
    "u2:$6$YOqwuVv5P3yfF6w/$DWtrBinZJ2xrwPQdlgqH06jwdGxlgJjC7jnXr4Yl9uW/LoFJrxTpv19MWMFUFgGPNt2k6xSRqDktVO84AGtugw==",
]


@pytest.mark.parametrize("line", MOSQUITTO, ids=["pbkdf2", "sha512"])
def test_a_file_of_mosquitto_moves_here_as_it_is(line):
    read = parse_line(line)
    assert read.verify(b"pw")
    assert not read.verify(b"pW")
    assert read.weak


@pytest.mark.parametrize("scheme", ["sha512-pbkdf2", "sha512"])
def test_what_the_mosquitto_passwd_of_this_machine_writes_is_read(tmp_path, scheme):
    if shutil.which("mosquitto_passwd") is None:
        missing("mosquitto_passwd is not installed (apt install mosquitto)")
    file = tmp_path / "passwords"
    file.touch(mode=0o600)
    for user, password in [("a", "pw"), ("käthe", "ein längeres Passwort"), ("c", "x" * 100)]:
        subprocess.run(["mosquitto_passwd", "-H", scheme, "-b", file, user, password], check=True)
        read = parse_line(file.read_text().splitlines()[-1])
        assert read.user == user
        assert read.verify(password.encode())
        assert not read.verify(password.encode() + b"x")


def test_many_iterations_are_not_weak():
    assert not parse_line(f"u:$7$210000${S12}${H64}").weak


# line → what the message has to say
REFUSED = [
    ("", "no ':'"),
    ("anna", "no ':'"),
    ("anna:", "has no password"),
    (":" + OURS.split(":")[1], "needs a name"),
    ("anna:secret", "plain text"),
    ("anna: " + OURS.split(":")[1], "plain text"),
    ("anna:$", "no hash"),
    ("anna:$$$$", "no hash"),
    ("anna:$1$salt$hash", "not read"),
    ("anna:$2b$12$" + "x" * 53, "not read"),
    ("anna:$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA", r"\$argon2id\$ are not read"),
    ("anna:$SCRYPT$" + OURS.split("$", 2)[2], "no hash"),
    ("anna:$scrypt$ln=14,r=8,p=1$c2FsdHNhbHQ", "not complete"),
    ("anna:$scrypt$ln=14,r=8$c2FsdHNhbHQ$aGFzaA", "not complete"),
    (OURS + "$", "something after"),
    (OURS + ":x", "base64"),
    (OURS + " ", "base64"),
    (OURS[:-43], "hash has 0 bytes"),
    (OURS[:-40], "hash has 2 bytes"),
    (OURS.replace("ln=14", "ln=0"), "64 MiB"),
    (OURS.replace("ln=14", "ln=17"), "64 MiB"),
    (OURS.replace("ln=14", "ln=99"), "64 MiB"),
    (OURS.replace("r=8", "r=0"), "64 MiB"),
    (OURS.replace("r=8", "r=999"), "64 MiB"),
    (OURS.replace("p=1", "p=999"), "too long"),
    (OURS.replace("p=1", "p=0"), "64 MiB"),
    (OURS.replace("ln=14", "ln=１４"), "not complete"),
    (f"anna:$7$0${S12}${H64}", "iterations"),
    (f"anna:$7$999999999${S12}${H64}", "iterations"),
    (f"anna:$7$-1${S12}${H64}", "not complete"),
    (f"anna:$7$101$${H64}", "salt has 0 bytes"),
    (f"anna:$7$101${S12}$", "hash has 0 bytes"),
    (f"anna:$7$101${S12}${H64[:40]}", "hash has 30 bytes"),
    (f"anna:$6${S12}${H64}{H64}", "base64|hash has"),
    (f"anna:$6${H64}", "not complete"),
    (f"an\0na:$6${S12}${H64}", "control"),
    (f"an\x1bna:$6${S12}${H64}", "control"),
    (f"#anna:$6${S12}${H64}", "comment"),
    (f" anna:$6${S12}${H64}", "space"),
    (f"anna :$6${S12}${H64}", "space"),
]


@pytest.mark.parametrize(("line", "says"), REFUSED)
def test_a_line_that_proves_nothing_is_an_error(line, says):
    with pytest.raises(ValueError, match=says):
        parse_line(line)


@given(st.text(max_size=80))
def test_any_text_is_a_line_or_an_error_that_does_not_show_the_password(text):
    try:
        assert parse_line("anna:" + text).user == "anna"
    except ValueError as error:
        said = str(error)
    else:
        said = ""
    assert len(text) <= 20 or text not in said


@settings(max_examples=20, deadline=None)
@given(st.text(min_size=1, max_size=12), st.binary(min_size=1, max_size=40))
def test_whoever_can_be_named_can_log_in(user, password):
    if check_user(user) is None:
        read = parse_line(make_line(user, password, SALT))
        assert (read.user, read.verify(password)) == (user, True)
    else:
        with pytest.raises(ValueError, match="name"):
            make_line(user, password, SALT)


def test_nobody_gets_an_empty_password():
    with pytest.raises(ValueError, match="empty"):
        make_line("anna", b"", SALT)


def test_a_hash_never_shows_where_a_password_is_printed():
    read = parse_line(OURS)
    assert "$" not in f"{read} {read!r}"


def test_a_user_who_is_not_there_costs_what_most_cost():
    slow, quick = parse_line(OURS), parse_line(f"u:$7$101${S12}${H64}")
    nobody = decoy({"a": quick, "b": slow, "c": slow}, b"luck" * 8)
    assert (nobody.scheme, nobody.cost) == (slow.scheme, slow.cost)
    assert not nobody.verify(b"secret")
    assert decoy({}, b"luck" * 8).cost == slow.cost
    few = decoy({"a": quick}, b"luck" * 8)
    assert (few.scheme, few.cost, len(few.expected)) == ("7", (101,), 64)
    assert isinstance(few, Password)
