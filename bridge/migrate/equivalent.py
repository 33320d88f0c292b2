"""A mosquitto.conf in our words: the values of a configuration, and notes about the rest.

Where Mosquitto's default is another than ours and a device could notice, it is
written out. Where ours protects the gateway and hardly any device meets it (the size
of a CONNECT, the wait for it, connections of one address), ours stays.

Who may come in: in Mosquitto each listener may have its own users and rules, here
there is one set of both. Where listeners disagree the strictest holds for all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from bridge.migrate.acl import read_acl
from bridge.migrate.conf import Setting
from bridge.migrate.listeners import TOPIC_ALIASES, address_of, grants, is_local, tls_keys
from bridge.migrate.mosquitto import Conf, MosquittoListener
from bridge.migrate.notes import Notes
from bridge.migrate.settings import GONE
from bridge.policy.units import format_duration, format_size

__all__ = ["equivalent"]

# A file without users: the house has names, and nobody knows one.
NOBODY: Final = "/dev/null"
_PACKET_BYTES_MAX: Final = 268_435_460  # the largest that MQTT can spell
_IN_FLIGHT: Final = 20
_QUEUED: Final = 1_000
_TOPIC_LEVELS: Final = 201  # it counts 200 slashes
_PACKET_BYTES_2_1: Final = 2_000_000
_CONNECT_BYTES_2_1: Final = 100_000
_WITHOUT_LIMIT: Final = 1_000_000_000  # messages; the store's own bound comes long before
_SPANS: Final = {"s": 1, "h": 3600, "d": 86_400, "w": 7 * 86_400, "m": 30 * 86_400, "y": 365 * 86_400}


def equivalent(conf: Conf, directory: Path, notes: Notes) -> dict[str, Any]:
    """The values of the configuration; what they do not say is added to the notes.

    Raises ConfigError for what Mosquitto would refuse too, and when nothing is left to listen on.
    """
    document: dict[str, Any] = {"version": 1}
    document["listeners"] = _listeners(conf, directory, notes)
    if access := _access(conf, document["listeners"], directory, notes):
        document["access"] = access
    if (store := _store(conf, directory, notes)) is not None:
        document["store"] = store
    # Mosquitto opens no such port, and a second gateway on this box would find it taken.
    document["web"] = "off"
    if (interval := conf.house.get("sys_interval")) is not None:
        seconds = interval.number(0, 65_535)
        document["sys"] = {"interval": format_duration(seconds)} if seconds else "off"
    document["limits"] = _limits(conf)
    for setting in conf.gone:
        notes.add(setting, GONE[setting.name])
    for plugin in [*conf.plugins, *(each for listener in conf.listeners for each in listener.plugins)]:
        notes.add(
            plugin, "plug-ins of Mosquitto are not loaded; whom it let in or kept out is not known here"
        )
    return document


def _listeners(conf: Conf, directory: Path, notes: Notes) -> list[dict[str, Any]]:
    entries = []
    kept = []
    for listener in conf.listeners:
        if (address := address_of(listener, directory, notes)) is None:
            continue
        entry: dict[str, Any] = dict([address])
        entry |= tls_keys(listener, directory, notes)
        if listener.origins and address[0] in ("ws", "wss"):
            entry["origins"] = listener.origins
        if "client_certificate" in entry:
            entry["anonymous"] = False  # without a certificate there is no name, and none is not enough
        elif not ("client_ca" in entry and "user_from" not in entry):
            entry["anonymous"] = _anonymous(conf, listener)
        if limits := grants(listener, notes):
            entry["limits"] = limits
        entries.append(entry)
        kept.append(listener)
    if not entries:
        where = next((listener.where for listener in conf.listeners if listener.where is not None), None)
        assert where is not None
        raise where.wrong("no listener is left that edgespool can serve")
    conf.listeners = kept
    return entries


def _anonymous(conf: Conf, listener: MosquittoListener) -> bool:
    setting = listener.get("listener_allow_anonymous")
    if setting is None and conf.per_listener and not conf.local_only:
        setting = listener.security.get("allow_anonymous")
    elif setting is None:
        setting = conf.security.get("allow_anonymous")
    return conf.local_only if setting is None else setting.flag()


def _securities(conf: Conf, name: str) -> list[Setting | None]:
    """What each listener has of `password_file` or `acl_file`."""
    if conf.per_listener:
        return [listener.security.get(name) for listener in conf.listeners]
    return [conf.security.get(name)] * len(conf.listeners)


def _access(conf: Conf, entries: list[dict[str, Any]], directory: Path, notes: Notes) -> dict[str, Any]:
    access: dict[str, Any] = {}
    passwords = _securities(conf, "password_file")
    acls = _securities(conf, "acl_file")
    files = _distinct(passwords)
    if files:
        access["users"] = str(directory / files[0].value)
        notes.add(
            files[0],
            "read as it is, if edgespool's user can read it and others cannot (chmod 600); "
            "passwords that are not hashed have to be (edgespool passwd)",
        )
        for other in files[1:]:
            notes.add(other, f"one file is read, {files[0].value}: add these users to it")
    elif any(not entry.get("anonymous", True) for entry in entries):
        access["users"] = NOBODY
        notes.say(
            "", "", "nothing says who may come in where 'anonymous' is false: nobody does, here as there"
        )
    rules = _only_prefixed(conf, _rules(acls, directory, notes))
    if rules is not None:
        access["rules"] = rules
    if files:
        for entry in entries:
            # A password would do in place of the certificate that gives the name.
            if entry.pop("client_certificate", None) is not None:
                del entry["anonymous"]
    for entry, listener_users in zip(entries, passwords, strict=True):
        # Mosquitto believes a name that no password file denies, and rules for those without a name are
        # not for such a one.
        if listener_users is None and entry.get("anonymous") and access:
            entry["unverified_users"] = True
    return access


def _distinct(settings: list[Setting | None]) -> list[Setting]:
    return list({setting.value: setting for setting in settings if setting is not None}.values())


def _rules(acls: list[Setting | None], directory: Path, notes: Notes) -> list[dict[str, Any]] | None:
    """The rules of all listeners; None when nothing is ruled."""
    files = _distinct(acls)
    if not files:
        return None
    read = [read_acl(directory / setting.value, setting) for setting in files]
    for acl in read:
        for where, about, text in acl.notes:
            notes.say(where, about, text)
    if len(files) == 1:
        if None in acls:
            notes.add(files[0], "holds on every listener, also on those that had no rules")
        notes.add(files[0], "written out as 'access.rules'; later changes belong there")
        return read[0].rules
    for setting in files:
        notes.add(setting, "rules hold on every listener, and these listeners disagree: nothing is allowed")
    return []


def _only_prefixed(conf: Conf, rules: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Rules that only hold for Client Identifiers with the prefixes that Mosquitto asked for."""
    prefixes = conf.house.get("clientid_prefixes")
    if prefixes is None:
        return rules
    if "*" in prefixes.value or "?" in prefixes.value:
        raise prefixes.wrong("* and ? stand for other characters in our rules")
    if rules is None:
        everything = ["#", "$SYS/#"]
        rules = [{"publish": everything, "subscribe": everything}]
    return [{"client": f"{prefixes.value}*", **rule} for rule in rules]


def _store(conf: Conf, directory: Path, notes: Notes) -> dict[str, Any] | None:
    persistence = conf.house.get("persistence", "retained_persistence")
    if persistence is None or not persistence.flag():
        text = "everything that is acknowledged is kept on the disk, always"
        if persistence is None:
            notes.say("", "persistence", f"is not set, and off in Mosquitto; {text}")
        else:
            notes.add(persistence, text)
    location = conf.house.get("persistence_location")
    if location is None:
        return None
    folder = directory / location.value / "edgespool"
    notes.add(location, f"messages are kept in {folder}; what Mosquitto saved is not read")
    return {"path": str(folder)}


def _limits(conf: Conf) -> dict[str, Any]:
    house = conf.house
    limits: dict[str, Any] = {}
    newer = conf.version == "2.1"
    packet = house.get("max_packet_size")
    packet_bytes = packet.number(20) if packet else _PACKET_BYTES_2_1 if newer else _PACKET_BYTES_MAX
    limits["packet_bytes"] = format_size(min(packet_bytes, _PACKET_BYTES_MAX))
    if newer:
        limits["connect_bytes"] = format_size(min(_CONNECT_BYTES_2_1, max(packet_bytes, 64)))
    in_flight = _number(house.get("max_inflight_messages"), _IN_FLIGHT)
    in_flight = in_flight if 0 < in_flight < 65_535 else 65_535
    limits |= {"receive_maximum": in_flight, "in_flight": in_flight, "topic_alias_maximum": TOPIC_ALIASES}
    limits["topic_levels"] = _TOPIC_LEVELS
    queued = _number(house.get("max_queued_messages"), _QUEUED)
    limits["session_messages"] = min(in_flight + queued, _WITHOUT_LIMIT) if queued > 0 else _WITHOUT_LIMIT
    queued_bytes = _number(house.get("max_queued_bytes"), 0)
    limits["session_bytes"] = format_size(max(queued_bytes, 1024)) if queued_bytes > 0 else "1TiB"
    limits |= {"reason_strings": False, "like_mosquitto": True}
    keep_alive = house.get("max_keepalive")
    if keep_alive is not None and (seconds := keep_alive.number(0, 65_535)):
        limits["keep_alive"] = format_duration(seconds)
    if (retain := house.get("retain_available")) is not None and not retain.flag():
        limits["retain"] = False
    empty = conf.security.get("allow_zero_length_clientid")
    if empty is not None and not empty.flag():
        limits["empty_client_ids"] = False
    for name, key in (("global_max_connections", "connections"), ("global_max_clients", "sessions")):
        if (number := _number(house.get(name), 0)) > 0:
            limits[key] = number
    if (expiry := house.get("persistent_client_expiration")) is not None:
        limits["session_expiry"] = format_duration(_span(expiry))
    return limits


def _number(setting: Setting | None, default: int) -> int:
    return default if setting is None else setting.number()


def _span(setting: Setting) -> int:
    word = setting.words()[0]
    unit = _SPANS.get(word[-1])
    if (
        unit is None
        or not word[:-1].isdecimal()
        or not word.isascii()
        or len(word) > 9
        or int(word[:-1]) == 0
    ):
        raise setting.wrong(f"{word[:64]!r} is not a time such as 12h, 14d, 2w, 1m or 1y")
    return int(word[:-1]) * unit


def opens(entries: list[dict[str, Any]]) -> bool:
    """Whether one of the listeners lets in anybody from outside."""
    return any(
        entry.get("anonymous") is True and not is_local(*next(iter(entry.items()))) for entry in entries
    )
