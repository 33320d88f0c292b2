"""How a mosquitto.conf is taken apart into settings, and what is said of mistakes in it."""

import pytest

from bridge.errors import ConfigError
from bridge.migrate.conf import Setting, read_settings


def read(tmp_path, text, **files):
    for name, content in files.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    conf = tmp_path / "mosquitto.conf"
    conf.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(each.name, each.value) for each in read_settings(conf, tmp_path)]


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", []),
        ("# listener 1883\n\n   \n", []),
        ("listener 1883", [("listener", "1883")]),
        ("listener 1883\r\nuser x\r\n", [("listener", "1883"), ("user", "x")]),
        ("  listener   1883   localhost  \n", [("listener", "1883   localhost")]),
        ("log_type\tall", [("log_type", "all")]),
        ("user", [("user", "")]),
        ("topic a # b", [("topic", "a # b")]),
        ("\ufeffuser x", [("user", "x")]),
    ],
)
def test_lines_become_settings(tmp_path, text, settings):
    assert read(tmp_path, text) == settings


def test_a_folder_is_read_in_its_place_in_the_order_of_mosquitto(tmp_path):
    read_files = read(
        tmp_path,
        "user a\ninclude_dir conf.d\nuser z\n",
        **{
            "conf.d__b.conf": "user b",
            "conf.d__B.conf": "user B",
            "conf.d__a2.conf": "user a2",
            "conf.d__.conf": "user never",
            "conf.d__c.conf.bak": "user never",
        },
    )
    assert [value for _, value in read_files] == ["a", "a2", "B", "b", "z"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "user x\ninclude_dir nowhere",
            "mosquitto.conf:2 include_dir: {tmp}/nowhere cannot be read: No such",
        ),
        ("include_dir", "mosquitto.conf:1 include_dir: has no value"),
        ("include_dir conf.d", "conf.d/x.conf:2 include_dir: stands in an included file"),
        (b"user x\nuser \xff\n", "mosquitto.conf:2: is not UTF-8 text"),
        (b"user x\nuser a\x00b\n", "mosquitto.conf:2: has a control character"),
    ],
)
def test_mistakes_say_file_and_line(tmp_path, text, says):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, **{"conf.d__x.conf": "user x\ninclude_dir conf.d"})
    assert says.format(tmp=tmp_path) in str(caught.value)


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.conf: cannot be read: No such file"):
        read_settings(tmp_path / "nothing.conf", tmp_path)


@pytest.mark.parametrize(("word", "number"), [("0", 0), ("20", 20), ("0x10", 16), ("010", 8), ("-1", -1)])
def test_numbers_are_read_as_c_reads_them(word, number):
    assert Setting("port", word, "f", 1).number() == number


@pytest.mark.parametrize("word", ["", "ten", "1_0", "08", "1.5", "0x", "٣", "9" * 40, "2147483648"])
def test_what_is_no_number_is_refused_with_its_place(word):
    with pytest.raises(ConfigError, match=r"^f:7 port: "):
        Setting("port", word, "f", 7).number()
