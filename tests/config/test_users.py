"""The password file: all of it is good, or none of it counts."""

import pytest

from bridge.config import ConfigProblems
from bridge.config.users import read_users, users_warnings
from bridge.policy.password import make_line
from tests.policy.test_password import MOSQUITTO

ANNA = make_line("anna", b"secret", b"0123456789abcdef")
BERT = make_line("bert", b"other", b"0123456789abcdef")


@pytest.fixture
def written(tmp_path):
    def write(content):
        file = tmp_path / "passwords"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        file.chmod(0o600)
        return file

    return write


@pytest.mark.parametrize(
    "text",
    [
        f"{ANNA}\n{BERT}\n",
        f"{ANNA}\n{BERT}",
        f"{ANNA}\r\n{BERT}\r\n",
        f"\ufeff# ours\n\n{ANNA}\n#{BERT}\n  \n{BERT}  \n",
    ],
)
def test_users_and_comments_are_read_as_people_write_them(written, text):
    users = read_users(written(text))
    assert list(users) == ["anna", "bert"]
    assert users["anna"].verify(b"secret")
    assert users["bert"].verify(b"other")


# content → line, what is said
MISTAKES = [
    (f"{ANNA}\nbert:secret\n", 2, "plain text"),
    (f"# ours\n\n{ANNA}\nbert\n", 4, "no ':'"),
    (f"{ANNA}\n{BERT}\n{ANNA}\n", 3, "'anna' stands twice, first in line 1"),
    (f"{ANNA}\n{BERT}\nanna:secret\n", 3, "plain text"),
    (f"{ANNA}\n #{BERT}\n", 2, "space"),
    (f"{ANNA}\n{BERT}\x00\n", 2, "base64"),
    (f"{ANNA}\r{BERT}\n", 1, "base64|something after"),
    (ANNA.encode() + b"\nb\xffert:x\n", 2, "not UTF-8"),
    (ANNA.encode("utf-16"), 1, "not UTF-8"),
    ("version: 1\nlisteners: []\n", 1, "plain text"),
    ("\0" * 100, 1, "no ':'"),
    ("-----BEGIN CERTIFICATE-----\n", 1, "no ':'"),
]


@pytest.mark.parametrize(("content", "line", "says"), MISTAKES)
def test_one_mistake_is_a_mistake_of_the_whole_file(written, content, line, says):
    file = written(content)
    with pytest.raises(ConfigProblems, match=says) as caught:
        read_users(file)
    assert f"{file}:{line}:1: " in str(caught.value)
    assert "$scrypt$ln" not in str(caught.value)


def test_all_mistakes_are_told_at_once_and_no_password_with_them(written):
    with pytest.raises(ConfigProblems) as caught:
        read_users(written("anna:hunter2\nbert:hunter2\ncarl:hunter2\n"))
    assert [problem.line for problem in caught.value.problems] == [1, 2, 3]
    assert "hunter2" not in str(caught.value)


def test_a_file_that_everyone_reads_is_refused(written):
    file = written(ANNA)
    file.chmod(0o644)
    with pytest.raises(ConfigProblems, match=f"chmod 600 {file}"):
        read_users(file)


@pytest.mark.parametrize("text", ["", "\n\n", "# nobody yet\n"])
def test_an_empty_file_has_no_users_and_says_so(written, text):
    users = read_users(written(text))
    assert users == {}
    assert "nobody can log in" in users_warnings(users)[0]


def test_hashes_that_are_quick_to_guess_are_named(written):
    assert users_warnings(read_users(written(f"{ANNA}\n{BERT}"))) == []
    (warning,) = users_warnings(read_users(written("\n".join([ANNA, *MOSQUITTO]))))
    assert "u1, u2" in warning
    assert "anna" not in warning
