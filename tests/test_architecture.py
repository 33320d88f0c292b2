"""The house as DESIGN drew it: floors, the map in the README, and what may never appear.

A map that nobody tests goes stale.
"""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the ground up. A package or module imports only from rows above its own
# in this list; what stands in one row are strangers. The fourth floor is the
# house itself and is built in order: the app knows the web, never the reverse.
FLOORS = [
    {"errors", "message", "topic"},
    {"mqtt", "policy"},
    {"private", "clock"},
    {"pem"},
    {"store", "sinks"},
    {"sources"},
    {"broker", "forward"},
    {"config", "observe"},
    {"web", "migrate"},
    {"app"},
    {"cli"},
]
# Words and rules decide; they know no clock, no network, no luck and no ear.
PURE = {"errors", "message", "topic", "mqtt", "policy"}
IMPURE_IMPORTS = {
    "asyncio",
    "socket",
    "os",
    "time",
    "random",
    "logging",
    "secrets",
    "threading",
    "select",
    "ssl",
}

NEVER = {
    r"\bpickle\b": "bytes from a network or a disk must not become code",
    r"yaml\.load\(": "use yaml.compose, which builds no objects",
    r"yaml\.unsafe": "use yaml.compose, which builds no objects",
    r"(?<![\w.])eval\(": "a configuration is not a program",
    r"(?<![\w.])exec\(": "a configuration is not a program",
    r"shell=True": "a file name is not a command",
    r"os\.system\(": "a file name is not a command",
    r"recv_pyobj|send_pyobj": "that is pickle by another name",
    r"recv_serialized": "say what the frames are",
}
LINES_MAX = 450

MODULES = sorted((ROOT / "bridge").rglob("*.py"))
TEXTS = [
    path
    for pattern in (
        "bridge/**/*.py",
        "config/**/*",
        "deploy/**/*",
        "*.md",
        "Makefile",
        ".ci/*",
        "pyproject.toml",
    )
    for path in sorted(ROOT.glob(pattern))
    if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".pyc", ".png")
]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def home_of(path: Path) -> str:
    """`store` for bridge/store/log.py, `topic` for bridge/topic.py, `` for bridge/__init__.py."""
    parts = path.relative_to(ROOT / "bridge").with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def imports_of(path: Path) -> set[str]:
    """Every module that is imported anywhere in the file, for types only included."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join((*package[: len(package) - node.level + 1], *filter(None, [base])))
            found |= {f"{base}.{alias.name}" for alias in node.names} | {base}
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_floor_imports_only_from_below(path):
    home = home_of(path)
    if not home:
        return
    floors = [index for index, floor in enumerate(FLOORS) if home in floor]
    assert floors, f"bridge/{home} stands on no floor: give it one in FLOORS"
    below = set().union(*FLOORS[: floors[0]]) | {home}
    used = {name.split(".")[1] for name in imports_of(path) if name.startswith("bridge.")}
    # `from bridge import __version__` is everyone's.
    strangers = used - below - {"__version__"}
    assert not strangers, f"{name_of(path)} imports bridge.{', bridge.'.join(sorted(strangers))}"


@pytest.mark.parametrize("path", [path for path in MODULES if home_of(path) in PURE], ids=name_of)
def test_words_and_rules_know_no_clock_no_network_and_no_luck(path):
    impure = {name.split(".")[0] for name in imports_of(path)} & IMPURE_IMPORTS
    assert not impure


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_opens_with_its_theory_and_fits_in_the_head(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LINES_MAX, "look for the second concept inside"
    theory = ast.get_docstring(ast.parse(text)) or ""
    if path.name == "__init__.py" and len(text.splitlines()) <= 5:
        assert theory or not text.strip()
    else:
        assert len(theory.splitlines()) >= 2, "a module opens with its theory, not with a title"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_may_never_appear_does_not(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for forbidden, why in NEVER.items():
            assert not re.search(forbidden, line), f"{name_of(path)}:{number}: {why}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_task_has_an_owner(path):
    """A `create_task` whose result is thrown away is a leak: nobody hears how it ended."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = node.value.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in ("create_task", "ensure_future"):
                owner = ast.unparse(called.value) if isinstance(called, ast.Attribute) else ""
                assert owner not in ("", "asyncio", "loop"), (
                    f"{name_of(path)}:{node.lineno}: a task without an owner"
                )


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_no_file_tells_where_it_was_written(path):
    machine = re.compile(r"/work/|/root/|/home/(?!\$|edgespool|user|you|pi\b)\w+|/tmp/bash|\.pyenv")
    for number, line in enumerate(path.read_text().splitlines(), 1):
        assert not machine.search(line), f"{name_of(path)}:{number}: {line.strip()}"


def test_the_map_in_the_readme_is_true():
    named = set(re.findall(r"`(bridge/[\w/]+\.py)`", (ROOT / "README.md").read_text()))
    there = {name_of(path) for path in MODULES}
    # A package's __init__ is its theory; the map may name it, and need not.
    wanted = {name for name in there if not name.endswith("__init__.py")}
    assert not named - there, "the README names modules that do not exist"
    assert not wanted - named, "modules that the README does not name"


def test_the_changelog_has_the_version_on_top():
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    package = re.search(r'^__version__ = "(.+)"', (ROOT / "bridge/__init__.py").read_text(), re.M)
    assert version
    assert package
    assert version[1] == package[1]
    heads = re.findall(r"^## (.+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert heads[0] == "Unreleased"
    assert heads[1].startswith(version[1])


def test_the_floors_of_this_test_are_the_floors_of_the_house():
    homes = {home_of(path) for path in MODULES} - {""}
    assert homes <= set().union(*FLOORS)
    assert all(not upper & lower for lower, upper in pairwise(FLOORS))
