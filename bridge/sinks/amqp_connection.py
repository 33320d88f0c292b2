"""Pika, as far as we need it: how to connect, how to write, and what its exceptions mean.

It wraps one cause in up to four exceptions and reports each of them; an operator
gets one line that says what to look at.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pika
from pika import exceptions
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.utils import connection_workflow

from bridge.errors import ConfigError
from bridge.private import check_private
from bridge.sinks.options import AmqpOptions, Declaration

__all__ = ["Connection", "declarations", "explain", "parameters"]

# It reports one failed attempt five times over, as errors; an outage is told once, by whoever keeps us.
logging.getLogger("pika").setLevel(logging.CRITICAL)


class Connection(AsyncioConnection):  # type: ignore[misc]  # pika has no types for us
    """Pika's connection with the three things that it keeps for its adapters."""

    def write(self, data: bytes) -> None:
        self._adapter_emit_data(data)

    @property
    def buffered_bytes(self) -> int:
        return 0 if self._transport is None else int(self._transport.get_write_buffer_size())

    @property
    def descriptors(self) -> list[int]:
        """The socket's, while there is one."""
        sock = getattr(self._transport, "_sock", None)
        return [] if sock is None or sock.fileno() < 0 else [sock.fileno()]

    def abort(self, error: Exception) -> None:
        self._terminate_stream(error)


def parameters(name: str, options: AmqpOptions, gateway: str) -> pika.URLParameters:
    """Turn our options into pika's. Raises ConfigError for a certificate that cannot be read."""
    parameters = pika.URLParameters(options.url.get_secret_value())
    parameters.heartbeat = int(options.heartbeat)
    parameters.connection_attempts = 1
    parameters.socket_timeout = parameters.stack_timeout = options.open_timeout
    parameters.blocked_connection_timeout = None  # how long a broker may block us is its operator's affair
    parameters.client_properties = {"connection_name": f"{gateway} {name}"}
    if options.tls is not None:
        try:
            context = ssl.create_default_context(cafile=options.tls.ca)
            if options.tls.certificate is not None:
                check_private(options.tls.key or options.tls.certificate)
                context.load_cert_chain(options.tls.certificate, options.tls.key)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError(f"sinks.{name}.amqp.tls: {error}") from error
        parameters.ssl_options = pika.SSLOptions(context, parameters.host)
    return parameters


def declarations(
    channel: Any, wanted: Iterable[Declaration]
) -> Iterator[tuple[Callable[..., Any], dict[str, Any]]]:
    """Yield what to call, and with what, so that all that is wanted is there, in its order."""
    for declaration in wanted:
        if (queue := declaration.queue) is not None:
            # A classic queue is declared without a type, as everybody else declares it: an
            # argument that differs is a conflict.
            kind = {} if queue.type == "classic" else {"x-queue-type": queue.type}
            arguments = {**queue.arguments, **kind}
            yield (
                channel.queue_declare,
                {"queue": queue.name, "durable": queue.durable, "arguments": arguments},
            )
        if (exchange := declaration.exchange) is not None:
            yield (
                channel.exchange_declare,
                {
                    "exchange": exchange.name,
                    "exchange_type": exchange.type,
                    "durable": True,
                    "arguments": exchange.arguments,
                },
            )
        if (binding := declaration.binding) is not None:
            yield (
                channel.queue_bind,
                {"queue": binding.queue, "exchange": binding.exchange, "routing_key": binding.key},
            )


def explain(error: BaseException) -> str:
    """Say in one line, and for the operator, what pika wraps in up to four exceptions."""
    error = _innermost(error)
    match error:
        case exceptions.ProbableAuthenticationError():
            return "the broker refuses the user name or the password"
        case exceptions.ProbableAccessDeniedError():
            return "the broker refuses access to the virtual host"
        case exceptions.ConnectionClosed() | exceptions.ChannelClosed():
            return f"closed by the broker: {error.reply_code} {error.reply_text}"
        case exceptions.AMQPHeartbeatTimeout():
            return "the broker's heartbeats stopped"
        case exceptions.StreamLostError() | exceptions.IncompatibleProtocolError():
            return "the connection broke"
        case socket.gaierror():
            return f"the host name is not known: {error.strerror}"
        case ssl.SSLError():
            return f"TLS: {error}"
        case TimeoutError() | connection_workflow.AMQPConnectorStackTimeout():
            return "no answer"
        case OSError():
            return (error.strerror or str(error)).lower()
        case _:
            return str(error) or type(error).__name__


def _innermost(error: BaseException) -> BaseException:
    for _ in range(8):
        inner = getattr(error, "exceptions", None) or getattr(error, "exception", None)
        if isinstance(inner, (list, tuple)):
            inner = inner[-1]
        if inner is None and type(error) is exceptions.AMQPConnectionError and error.args:
            inner = error.args[0]
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error
