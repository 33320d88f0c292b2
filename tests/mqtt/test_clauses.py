"""The clause tables: complete, of ids that exist, and naming tests that exist.

Whether a test proves its clause is for people to judge; that it exists, with its
parameters, is asked of pytest itself.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.mqtt import clauses_v3, clauses_v5
from tests.mqtt.spec import COUNTS, ROOT, clause_ids, numbered_alike

TABLES = {3: clauses_v3.CLAUSES, 5: clauses_v5.CLAUSES}
both = pytest.mark.parametrize("version", [3, 5])


@pytest.fixture(scope="module")
def collected():
    """Every test that the tables could name, as pytest names it, and each without its parameters."""
    files = {name.partition("::")[0] for table in TABLES.values() for proof in table.values()
             if not isinstance(proof, str) for name in proof}  # fmt: skip
    assert all((ROOT / file).is_file() for file in files), "a table names a file that does not exist"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *sorted(files)], cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = {line for line in done.stdout.splitlines() if "::" in line}
    return names | {name.partition("[")[0] for name in names}


@both
def test_the_package_has_as_many_clauses_as_it_is_known_for(version):
    assert len(clause_ids(version)) == COUNTS[version]


@both
def test_every_clause_has_a_row_and_every_row_a_clause(version):
    assert not clause_ids(version) - set(TABLES[version]), "clauses that nobody has answered for"
    assert not set(TABLES[version]) - clause_ids(version), "ids that are in no specification"


@both
def test_every_row_names_tests_or_a_reason(version):
    assert [clause for clause, proof in TABLES[version].items() if not proof] == []
    assert all(isinstance(proof, str) or len(set(proof)) == len(proof) for proof in TABLES[version].values())


@both
def test_every_test_that_a_row_names_exists(version, collected):
    named = {name for proof in TABLES[version].values() if not isinstance(proof, str) for name in proof}
    assert sorted(named - collected) == []


# ---- the tags in the code ----


def tags_of(text: str) -> list[tuple[int, str, str]]:
    """(line, version or "", id) of each tag: `[MQTT-…]`, `v5 [MQTT-…]` or `[v5 MQTT-…]`."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for part in re.finditer(r"(?:\bv([35]) \[?)?\b(MQTT-\d[\d.]*-\d+)", line):
            found.append((number, part[1] or "", part[2]))
    return found


def test_a_tag_is_read_with_its_version():
    text = "x  # v5 [MQTT-2.2.1-3], v3 [MQTT-2.3.1-1], [MQTT-3.1.0-1]\n# [MQTT-3.1.0-2] [v5 MQTT-3.14.0-1]."
    assert tags_of(text) == [
        (1, "5", "MQTT-2.2.1-3"),
        (1, "3", "MQTT-2.3.1-1"),
        (1, "", "MQTT-3.1.0-1"),
        (2, "", "MQTT-3.1.0-2"),
        (2, "5", "MQTT-3.14.0-1"),
    ]


def test_every_tag_in_the_code_is_a_clause_of_the_version_it_says():
    """A tag without a version is one of MQTT 5; where 3.1.1 has the same number, it says the same there."""
    wrong = []
    for path in sorted((ROOT / "bridge").rglob("*.py")):
        for number, version, tag in tags_of(path.read_text()):
            at = f"{path.relative_to(ROOT)}:{number}: {tag}"
            if tag not in clause_ids(int(version or 5)):
                wrong.append(f"{at} is no clause of {version or 5}")
            elif not version and not numbered_alike(tag):
                wrong.append(f"{at} is another clause in 3.1.1; write v5 [{tag}]")
    assert wrong == []


def test_the_numbers_that_two_versions_gave_to_different_clauses_are_told_apart():
    assert numbered_alike("MQTT-3.1.0-2")
    assert numbered_alike("MQTT-4.4.0-1")
    assert not numbered_alike("MQTT-3.1.2-24")
    assert not numbered_alike("MQTT-4.7.1-1")
