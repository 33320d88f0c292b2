"""The configuration: from a YAML file to values that cannot be wrong.

    parse ──► values, and the place of each ─┐
    secrets ► ${env:…} filled in             ├─► load ──► Config
    model ──► types, bounds, defaults        │      └──► or one report of every mistake
    routes, commands ► what the parts say of another ─┤
    explain ► where a mistake stands ────────┘

Nobody else in the house sees YAML, pydantic's errors or the environment.
"""

from bridge.config.load import load, loads
from bridge.config.model import Config, default_config
from bridge.config.problem import ConfigProblems, Problem
from bridge.config.routes import build_routes, warnings

__all__ = [
    "Config",
    "ConfigProblems",
    "Problem",
    "build_routes",
    "default_config",
    "load",
    "loads",
    "warnings",
]
