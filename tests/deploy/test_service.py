"""The unit file: what systemd itself thinks of it, and what the program needs of it."""

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "edgespool.service"
EXPOSURE_MAX = 1.5

needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze") and "CI" not in os.environ, reason="systemd-analyze is missing"
)


@pytest.fixture(scope="module")
def unit():
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(UNIT)
    return parser


@needs_systemd
def test_the_exposure_is_low():
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", told.stdout)
    assert level, told.stdout + told.stderr
    assert float(level[1]) <= EXPOSURE_MAX


@needs_systemd
def test_systemd_knows_every_word_of_it(tmp_path):
    installed = tmp_path / "edgespool.service"
    installed.write_text(UNIT.read_text().replace("/opt/edgespool/bin/edgespool", "/bin/true"))
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(installed)], capture_output=True, text=True, timeout=60
    )
    # Only what it says of our file: the machine's own units are not ours to mend.
    assert "edgespool.service" not in told.stderr + told.stdout, told.stderr


def test_it_runs_without_root_and_owns_one_folder(unit):
    service = unit["Service"]
    assert service["DynamicUser"] == "yes"
    assert service["StateDirectory"] == "edgespool"
    assert "--state /var/lib/edgespool" in service["ExecStart"]
    assert service["CapabilityBoundingSet"] == ""


def test_it_comes_back_but_not_with_a_wrong_configuration(unit):
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["Restart"] == "always"
    assert service["RestartPreventExitStatus"] == "78"
    assert int(service["TimeoutStopSec"]) >= 5
    assert int(service["LimitNOFILE"]) >= 4096


def test_libzmq_may_ask_for_the_interfaces(unit):
    """Without AF_NETLINK libzmq aborts the process when it binds."""
    families = unit["Service"]["RestrictAddressFamilies"].split()
    assert {"AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"} == set(families)


def test_make_install_puts_every_file_it_names():
    recipe = (ROOT / "Makefile").read_text().split("\ninstall:")[1].split("\n\n")[0]
    for name in re.findall(r"deploy/[\w.-]+", recipe):
        assert (ROOT / name).is_file(), name
