"""A RabbitMQ that speaks TLS and takes a certificate for a name, as a cloud's would."""

from __future__ import annotations

from pathlib import Path

from tests.pki import Authority
from tests.servers import RabbitMQ, free_port

__all__ = ["Secure"]


class Secure:
    """A RabbitMQ with TLS: whoever shows a certificate is whom it names, others have a password."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder, "cloud")
        self.port = free_port()
        pair = self.authority.server("broker")
        self.server = RabbitMQ(
            folder / "rabbitmq",
            f"listeners.ssl.1 = 127.0.0.1:{self.port}\n"
            f"ssl_options.cacertfile = {self.authority.certificate}\n"
            f"ssl_options.certfile = {pair.certificate}\n"
            f"ssl_options.keyfile = {pair.key}\n"
            "ssl_options.verify = verify_peer\n"
            "ssl_options.fail_if_no_peer_cert = false\n"
            "auth_mechanisms.1 = PLAIN\n"
            "auth_mechanisms.2 = EXTERNAL\n"
            "ssl_cert_login_from = common_name\n",
            plugins=["rabbitmq_auth_mechanism_ssl"],
        )
