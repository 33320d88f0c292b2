"""Who may connect, and what they may do: `access`.

    access:
      users: passwords                 # made by `edgespool passwd`
      rules:                           # or the name of a YAML file with such a list
        - {user: "press-*", publish: ["plant/{user}/#"], subscribe: ["plant/{user}/set"]}
        - {user: "*", deny: {receive: ["plant/secret/#"]}}

Without `rules` everyone who is let in may do everything. With them, everything
that no rule allows is forbidden, and a `deny` goes before every permission. What
may be received is what may be subscribed to, unless `receive` says otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag

from bridge.config.words import Section
from bridge.policy.access import Rule as Compiled
from bridge.policy.access import check_rule_filter

__all__ = ["Access", "Rule", "compile_rules"]


def _check_filter(text: str) -> str:
    if wrong := check_rule_filter(text):
        raise ValueError(wrong)
    return text


def _check_response_topic(text: str | None) -> str | None:
    if text is not None and (wrong := check_rule_filter(text) or _check_name(text)):
        raise ValueError(wrong)
    return text


def _check_name(text: str) -> str | None:
    return "a topic to answer to has no wildcards" if "+" in text or "#" in text else None


Filters = list[Annotated[str, AfterValidator(_check_filter)]]


class Deny(Section):
    """What is forbidden, whatever else allows it."""

    publish: Annotated[Filters, Field(default_factory=list)]
    subscribe: Annotated[Filters, Field(default_factory=list)]
    receive: Annotated[Filters, Field(default_factory=list)]


class Rule(Section):
    """For whom, and what. `{user}` and `{client}` in a filter stand for the name itself, literally."""

    user: Annotated[
        str | None, Field(min_length=1, description="user name; * and ? as in file names; default: everyone")
    ] = None
    client: Annotated[str | None, Field(min_length=1, description="Client Identifier, in the same way")] = (
        None
    )
    anonymous: Annotated[bool, Field(description="for devices without a user name only")] = False
    publish: Annotated[Filters, Field(default_factory=list)]
    subscribe: Annotated[Filters, Field(default_factory=list)]
    receive: Annotated[Filters | None, Field(description="default: as subscribe")] = None
    deny: Annotated[Deny, Field(default_factory=Deny)]


def _kind(value: Any) -> str:
    """Which of the two is meant, so that a mistake in a rule is not also one in the name of a file."""
    return "file" if isinstance(value, str | Path) else "list"


def _check_file(path: Path) -> Path:
    if path in (Path(), Path("/")):
        raise ValueError("must be the name of a file")
    return path


File = Annotated[Path, AfterValidator(_check_file)]
Rules = Annotated[
    Annotated[list[Rule], Tag("list")] | Annotated[File, Tag("file")],
    Discriminator(_kind),
]


class Access(Section):
    """Users and rules. Both files are read again on SIGHUP."""

    users: Annotated[File | None, Field(description="password file, made by `edgespool passwd`")] = None
    rules: Annotated[Rules | None, Field(description="a list, or a YAML file with one")] = None
    response_topic: Annotated[
        str | None,
        AfterValidator(_check_response_topic),
        Field(description="offered as Response Information, such as reply/{client}"),
    ] = None


def compile_rules(rules: list[Rule]) -> list[Compiled]:
    """The rules as `bridge.policy.access` takes them."""
    return [
        Compiled(
            user=rule.user,
            client=rule.client,
            anonymous=rule.anonymous,
            publish=tuple(rule.publish),
            subscribe=tuple(rule.subscribe),
            receive=tuple(rule.subscribe if rule.receive is None else rule.receive),
            deny_publish=tuple(rule.deny.publish),
            deny_subscribe=tuple(rule.deny.subscribe),
            deny_receive=tuple(rule.deny.receive) + tuple(rule.deny.subscribe),
        )
        for rule in rules
    ]
