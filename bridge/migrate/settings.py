"""Every setting of Mosquitto 2.0 and 2.1 by name: whose it is, and what happens where we have no such thing.

    LISTENER   about one listener, or about the default one when it stands before the first
    SECURITY   the same with `per_listener_settings true`, else about the whole broker
    HOUSE      about the whole broker
    BRIDGE     about the `connection` above
    GONE       nothing here is like it: the sentence says what happens instead

A setting that is in none of them is a mistake, as it is to Mosquitto.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "BRIDGE",
    "FLAGS",
    "GONE",
    "HOUSE",
    "LISTENER",
    "NUMBERS",
    "ONLY_2_1",
    "PLUGIN",
    "SECURITY",
    "known_names",
]

LISTENER: Final = frozenset(
    (
        *("bind_interface", "cafile", "capath", "certfile", "crlfile", "keyfile", "max_connections"),
        *("max_qos", "maximum_qos", "max_topic_alias", "mount_point", "protocol", "psk_hint"),
        *("require_certificate", "socket_domain", "tls_version", "use_identity_as_username"),
        *("use_subject_as_username", "websockets_origin", "listener_allow_anonymous"),
        *("enable_proxy_protocol", "max_topic_alias_broker"),
    )
)
SECURITY: Final = frozenset(("acl_file", "allow_anonymous", "allow_zero_length_clientid", "password_file"))
HOUSE: Final = frozenset(
    (
        *("global_max_clients", "global_max_connections", "max_inflight_messages", "max_keepalive"),
        *(
            "max_packet_size",
            "max_queued_bytes",
            "max_queued_messages",
            "persistence",
            "retained_persistence",
        ),
        *("persistence_location", "persistent_client_expiration", "retain_available", "sys_interval"),
        *("clientid_prefixes", "per_listener_settings"),
    )
)
BRIDGE: Final = frozenset(
    (
        *("address", "addresses", "topic", "cleansession", "clientid", "idle_timeout", "keepalive_interval"),
        *("local_cleansession", "local_clientid", "local_password", "local_username", "notification_topic"),
        *("notifications", "notifications_local_only", "password", "remote_clientid", "remote_password"),
        *("remote_username", "restart_timeout", "round_robin", "start_type", "threshold", "try_private"),
        *("username", "bridge_alpn", "bridge_attempt_unsubscribe", "bridge_bind_address", "bridge_cafile"),
        *("bridge_capath", "bridge_certfile", "bridge_ciphers", "bridge_ciphers_tls1.3", "bridge_identity"),
        *("bridge_insecure", "bridge_keyfile", "bridge_max_packet_size", "bridge_max_topic_alias"),
        *("bridge_outgoing_retain", "bridge_protocol_version", "bridge_psk", "bridge_receive_maximum"),
        *("bridge_reload_type", "bridge_require_ocsp", "bridge_session_expiry_interval"),
        *("bridge_tcp_keepalive", "bridge_tcp_user_timeout", "bridge_tls_use_os_certs", "bridge_tls_version"),
    )
)
_LOGS: Final = "the log goes to stderr, one line an event, for the journal to keep"
_SAVED: Final = "every message is on the disk before it is acknowledged"
_CIPHERS: Final = "TLS 1.2 and newer with the ciphers of Python's default"
GONE: Final = {
    "accept_protocol_versions": "3.1, 3.1.1 and 5 are all taken",
    "allow_duplicate_messages": "overlapping subscriptions of one client bring one copy",
    "auth_plugin_deny_special_chars": "plug-ins of Mosquitto are not loaded",
    "auto_id_prefix": "a device without a Client Identifier is given one of ours",
    "autosave_interval": _SAVED,
    "autosave_on_changes": _SAVED,
    "check_retain_source": "what its publisher may not publish any more is not delivered, in any case",
    "ciphers": _CIPHERS,
    "ciphers_tls1.3": _CIPHERS,
    "connection_messages": _LOGS,
    "dhparamfile": _CIPHERS,
    "disable_client_cert_date_checks": "a certificate that has expired is refused",
    "enable_control_api": "there is no $CONTROL",
    "http_dir": "no files are served over HTTP",
    "listener_auto_id_prefix": "a device without a Client Identifier is given one of ours",
    "log_dest": _LOGS,
    "log_facility": _LOGS,
    "log_timestamp": _LOGS,
    "log_timestamp_format": _LOGS,
    "log_type": _LOGS,
    "max_inflight_bytes": "only the number of messages in flight is limited (limits.in_flight)",
    "memory_limit": "each thing that costs memory has a limit of its own (limits)",
    "message_size_limit": "larger messages are taken; limits.packet_bytes limits whole packets",
    "packet_buffer_size": "buffers grow as needed, up to limits.packet_bytes",
    "persistence_file": "store.path is a folder with files of its own; Mosquitto's is not read",
    "pid_file": "none is written; systemd knows the process",
    "proxy_protocol_v2_require_tls": "the PROXY protocol is not spoken",
    "psk_file": "TLS with pre-shared keys is not spoken",
    "queue_qos0_messages": "QoS 0 is not kept for who is away",
    "retain_expiry_interval": "retained messages stay until replaced, or until their own expiry (MQTT 5)",
    "retry_interval": "messages are sent again when the device comes back, as MQTT says",
    "set_tcp_nodelay": "it is always on",
    "tls_engine": "keys are read from files",
    "tls_engine_kpass_sha1": "keys are read from files",
    "tls_keyform": "keys are read from files",
    "upgrade_outgoing_qos": "a message is delivered with the lower of both QoS, as MQTT says",
    "use_username_as_clientid": "a session belongs to the user who made it, whatever the Client Identifier",
    "user": "edgespool never changes its user; the service says which one it is (User= of systemd)",
    "websockets_headers_size": "an HTTP head of a usual size is taken",
    "websockets_log_level": _LOGS,
}
PLUGIN: Final = frozenset(("plugin", "auth_plugin", "global_plugin", "plugin_load", "plugin_use"))

# Of those that nothing comes of: what their values have to be, so that a slip of the pen is still found.
FLAGS: Final = frozenset(
    (
        *(
            "allow_duplicate_messages",
            "auth_plugin_deny_special_chars",
            "autosave_on_changes",
            "check_retain_source",
            "connection_messages",
        ),
        *("disable_client_cert_date_checks", "enable_control_api", "log_timestamp", "queue_qos0_messages"),
        *("proxy_protocol_v2_require_tls", "set_tcp_nodelay", "upgrade_outgoing_qos"),
        *("use_username_as_clientid", "cleansession", "local_cleansession", "notifications"),
        *("notifications_local_only", "round_robin", "try_private", "bridge_attempt_unsubscribe"),
        *("bridge_insecure", "bridge_outgoing_retain", "bridge_require_ocsp", "bridge_tls_use_os_certs"),
    )
)
NUMBERS: Final = frozenset(
    (
        *("autosave_interval", "log_facility", "max_inflight_bytes", "memory_limit", "message_size_limit"),
        *("packet_buffer_size", "retain_expiry_interval", "websockets_headers_size"),
        *("websockets_log_level", "idle_timeout", "keepalive_interval", "threshold"),
        *("bridge_max_packet_size", "bridge_max_topic_alias", "bridge_receive_maximum"),
        *("bridge_session_expiry_interval", "bridge_tcp_user_timeout"),
    )
)

# A file with one of these is for 2.1, whose defaults are different in places.
ONLY_2_1: Final = frozenset(
    (
        *("accept_protocol_versions", "disable_client_cert_date_checks", "enable_control_api"),
        *("enable_proxy_protocol", "global_max_clients", "global_max_connections", "global_plugin"),
        *(
            "listener_allow_anonymous",
            "listener_auto_id_prefix",
            "max_topic_alias_broker",
            "packet_buffer_size",
        ),
        *("plugin_load", "plugin_use", "proxy_protocol_v2_require_tls", "websockets_origin"),
        *("bridge_ciphers", "bridge_ciphers_tls1.3", "bridge_max_topic_alias", "bridge_receive_maximum"),
        *("bridge_reload_type", "bridge_session_expiry_interval", "bridge_tcp_keepalive"),
        *("bridge_tcp_user_timeout", "bridge_tls_use_os_certs"),
    )
)


def known_names() -> frozenset[str]:
    """Every name there is, but for `plugin_opt_…` and `auth_opt_…`."""
    return (
        LISTENER
        | SECURITY
        | HOUSE
        | BRIDGE
        | GONE.keys()
        | PLUGIN
        | {"listener", "port", "bind_address", "connection"}
    )
