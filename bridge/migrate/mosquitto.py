"""What the settings of a mosquitto.conf amount to: listeners, who is let in, bridges, the rest.

Settings of a listener stand below its `listener` line. Before the first one they
make the default listener on port 1883; and when nothing says `listener`, `port` or
`bind_address`, whatever was said about it is forgotten and only loopback listens.

    per_listener_settings true     each listener has its own users and rules
    per_listener_settings false    there is one set of both, wherever in the file it stands
"""

from __future__ import annotations

from typing import Final

from bridge.errors import ConfigError
from bridge.migrate.conf import Setting
from bridge.migrate.settings import (
    BRIDGE,
    FLAGS,
    GONE,
    HOUSE,
    LISTENER,
    NUMBERS,
    ONLY_2_1,
    PLUGIN,
    SECURITY,
    known_names,
)
from bridge.policy.spelling import did_you_mean

__all__ = ["BridgeTo", "Conf", "MosquittoListener", "Scope", "collect"]

_PLUGIN_OPTIONS: Final = ("plugin_opt_", "auth_opt_")
# What two plug-ins of Mosquitto 2.1 do is what two settings did before, and is as well understood.
_PLUGIN_SETTINGS: Final = {
    "mosquitto_password_file": ("plugin_opt_password_file", "password_file"),
    "mosquitto_acl_file": ("plugin_opt_acl_file", "acl_file"),
}


class Scope:
    """Settings by name; the last one counts, unless Mosquitto wants it once."""

    def __init__(self) -> None:
        self.settings: dict[str, Setting] = {}

    def take(self, setting: Setting) -> None:
        """Keep it, in place of what stood before."""
        self.settings[setting.name] = setting

    def get(self, *names: str) -> Setting | None:
        """The first of these that is set."""
        return next((self.settings[name] for name in names if name in self.settings), None)

    def flag(self, name: str) -> bool:
        """Whether it is set, and to true."""
        setting = self.get(name)
        return setting is not None and setting.flag()


class MosquittoListener(Scope):
    """One address: `host` as written or None for all, or the `path` of a Unix socket."""

    def __init__(
        self, where: Setting | None, port: int, host: str | None = None, path: str | None = None
    ) -> None:
        super().__init__()
        self.where = where
        self.port = port
        self.host = host
        self.path = path
        self.origins: list[str] = []
        self.security = Scope()
        self.plugins: list[Setting] = []

    @property
    def websockets(self) -> bool:
        """Whether MQTT comes over WebSocket here."""
        protocol = self.get("protocol")
        return protocol is not None and protocol.words()[0] == "websockets"


class BridgeTo(Scope):
    """A bridge to another broker: its name, and its `topic` lines."""

    def __init__(self, where: Setting, name: str) -> None:
        super().__init__()
        self.where = where
        self.name = name
        self.topics: list[Setting] = []


class Conf:
    """All of it."""

    def __init__(self) -> None:
        self.listeners: list[MosquittoListener] = []
        self.house = Scope()
        self.security = Scope()
        self.bridges: list[BridgeTo] = []
        self.plugins: list[Setting] = []
        self.gone: list[Setting] = []  # in the order of the file
        self.per_listener = False
        self.local_only = True
        self.version = "2.0"


class _Place:
    """Where reading stands in one file: what its next line is about."""

    def __init__(self) -> None:
        self.listener: MosquittoListener | None = None
        self.bridge: BridgeTo | None = None
        self.plugin: Setting | None = None


def collect(settings: list[Setting]) -> Conf:
    """Sort the settings to whom they are about. Raises ConfigError that says where and what is wrong."""
    reader = _Reader()
    for setting in settings:
        reader.take(setting)
    return reader.finish()


class _Reader:
    def __init__(self) -> None:
        self.conf = Conf()
        self.places: dict[str, _Place] = {}
        self.default = MosquittoListener(None, 1883)
        self.default_wanted = False

    def take(self, setting: Setting) -> None:
        place = self.places.setdefault(setting.file, _Place())
        name = setting.name
        if name in ONLY_2_1:
            self.conf.version = "2.1"
        if name in FLAGS:
            setting.flag()
        elif name in NUMBERS:
            setting.number()
        if name == "listener":
            place.listener = self._listener(setting)
        elif name in ("port", "bind_address"):
            self._default_address(setting)
            place.listener = self.default
        elif name == "connection":
            place.bridge = self._bridge(setting)
        elif name in BRIDGE:
            self._of_bridge(setting, place.bridge)
        elif name in PLUGIN or name.startswith(_PLUGIN_OPTIONS):
            self._plugin(setting, place)
        elif name == "per_listener_settings":
            self.conf.per_listener = self.conf.per_listener or setting.flag()
        elif name in SECURITY:
            setting.text()
            self._of_security(setting, place)
        elif name in LISTENER:
            self._of_listener(setting, place)
        elif name in HOUSE:
            setting.text()
            self.conf.house.take(setting)
        elif name in GONE:
            setting.text()
            self.conf.gone.append(setting)
        else:
            raise ConfigError(
                f"{setting.where}: {name[:64]!r} is not a setting of Mosquitto 2"
                f"{did_you_mean(name, sorted(known_names()))}"
            )

    def finish(self) -> Conf:
        conf = self.conf
        if conf.local_only:
            conf.listeners = [MosquittoListener(None, 1883, "127.0.0.1")]
        elif self.default_wanted:
            conf.listeners.insert(0, self.default)
        for bridge in conf.bridges:
            if bridge.get("address", "addresses") is None:
                raise bridge.where.wrong("the bridge has no 'address'")
            if not bridge.topics:
                raise bridge.where.wrong("the bridge has no 'topic'")
        for listener in conf.listeners:
            _check_tls(listener)
        return conf

    def _listener(self, setting: Setting) -> MosquittoListener:
        words = setting.words()
        port = setting.number(0, 65_535)
        host = words[1] if len(words) > 1 and not words[1].startswith("#") else None
        if port == 0 and host is None:
            raise setting.wrong("port 0 needs the path of a Unix socket")
        if port == 0:
            listener = MosquittoListener(setting, 0, path=host)
        else:
            listener = MosquittoListener(setting, port, host)
        self.conf.local_only = False
        self.conf.listeners.append(listener)
        return listener

    def _default_address(self, setting: Setting) -> None:
        self.conf.local_only = False
        self.default_wanted = True
        self.default.where = setting
        if setting.name == "port":
            self.default.port = setting.number(1, 65_535)
        else:
            self.default.host = setting.text()

    def _of_listener(self, setting: Setting, place: _Place) -> None:
        if place.listener is None:
            place.listener = self.default
            self.default_wanted = True
            self.default.where = self.default.where or setting
        setting.text()
        if setting.name == "protocol":
            setting.word("mqtt", "websockets", "http_api")
        elif setting.name == "websockets_origin":
            place.listener.origins.append(setting.text())
        place.listener.take(setting)

    def _of_security(self, setting: Setting, place: _Place) -> None:
        if not self.conf.per_listener:
            self.conf.security.take(setting)
            return
        if place.listener is None:
            place.listener = self.default
            self.default_wanted = True
            self.default.where = self.default.where or setting
        place.listener.security.take(setting)

    def _bridge(self, setting: Setting) -> BridgeTo:
        name = setting.words()[0]
        if any(bridge.name == name for bridge in self.conf.bridges):
            raise setting.wrong(f"there is already a bridge {name[:64]!r}")
        self.conf.bridges.append(BridgeTo(setting, name))
        return self.conf.bridges[-1]

    def _of_bridge(self, setting: Setting, bridge: BridgeTo | None) -> None:
        if bridge is None:
            raise setting.wrong("belongs to a bridge; write 'connection NAME' above it")
        setting.text()
        if setting.name == "topic":
            bridge.topics.append(setting)
        else:
            bridge.take(setting)

    def _plugin(self, setting: Setting, place: _Place) -> None:
        if setting.name in PLUGIN:
            setting.text()
            place.plugin = setting
        elif place.plugin is None:
            raise setting.wrong("belongs to a plug-in; write 'plugin FILE' above it")
        elif (like := _like_setting(place.plugin)) is not None:
            if setting.name == like[0]:
                self._of_security(Setting(like[1], setting.text(), setting.file, setting.line), place)
            return
        if setting.name in PLUGIN and _like_setting(setting) is not None:
            return
        plugins = place.listener.plugins if self.conf.per_listener and place.listener else self.conf.plugins
        plugins.append(setting)


def _like_setting(plugin: Setting) -> tuple[str, str] | None:
    """The option of a plug-in that does what a setting does, and that setting."""
    file = plugin.words()[-1].rsplit("/", 1)[-1]
    return next((like for stem, like in _PLUGIN_SETTINGS.items() if file.startswith(stem)), None)


def _check_tls(listener: MosquittoListener) -> None:
    certificate, key = listener.get("certfile"), listener.get("keyfile")
    for one, other in ((certificate, "keyfile"), (key, "certfile")):
        if one is not None and (certificate is None or key is None):
            raise one.wrong(f"needs {other!r} beside it")
    for name in ("cafile", "capath"):
        authority = listener.get(name)
        if authority is not None and certificate is None and listener.get("psk_hint") is None:
            raise authority.wrong("needs 'certfile' and 'keyfile' beside it")
