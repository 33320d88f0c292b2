"""The files in config/ are what a user copies: each one is valid, and says what it claims."""

import json
from pathlib import Path

import pytest

from bridge.config import build_routes, default_config, load, warnings
from bridge.config.schema import json_schema

CONFIG = Path(__file__).parents[2] / "config"
SAMPLES = sorted(CONFIG.glob("*.yaml"))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_sample_is_valid_and_nothing_in_it_is_probably_not_meant(path, monkeypatch):
    for name in ("AMQP_URL", "AMQP_URL_1", "AMQP_URL_2", "AMQP_URL_3", "GATEWAY", "COLLECTOR"):
        monkeypatch.delenv(name, raising=False)
    config = load(path)
    assert build_routes(config)
    assert warnings(config) == []


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_sample_points_editors_to_the_schema(path):
    assert path.read_text().startswith("# yaml-language-server: $schema=edgespool.schema.json\n")


def test_the_quickstart_says_what_runs_without_a_file():
    quickstart = load(CONFIG / "quickstart.yaml").describe()
    assert quickstart == {**default_config().describe(), "gateway": "quickstart"}


def test_the_schema_for_editors_is_current():
    current = json.loads((CONFIG / "edgespool.schema.json").read_text())
    assert current == json_schema(), (
        "write it anew: python -m bridge.config.schema > config/edgespool.schema.json"
    )


def test_the_schema_knows_no_null():
    assert '"null"' not in json.dumps(json_schema())
