"""Pika, as far as we need it: how to connect, how to write, and what its exceptions mean.

It wraps one cause in up to four exceptions and reports each of them; an operator
gets one line that says what to look at.

Of several hosts each is tried once, from the one after that which failed last: a whole
round without success is one failure, and whoever keeps us waits only then.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final

import pika
from pika import exceptions
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.utils import connection_workflow

from bridge.errors import ConfigError, SinkUnavailable
from bridge.sinks.amqp_options import Address, AmqpOptions, Declaration
from bridge.sinks.amqp_tls import client_context, explain_alert, explain_tls

__all__ = ["Connection", "Hosts", "declarations", "explain", "parameters"]

# It reports one failed attempt five times over, as errors; an outage is told once, by whoever keeps us.
logging.getLogger("pika").setLevel(logging.CRITICAL)

LARGE_BYTES: Final = 64 << 10


class Connection(AsyncioConnection):  # type: ignore[misc]  # pika has no types for us
    """Pika's connection with the things that it keeps for its adapters."""

    def write_all(self, pieces: list[bytes]) -> None:
        """Hand frames over; what the kernel takes at once never waits for a turn of the loop."""
        # Joined, because each write costs the broker and us a system call; but a large
        # body in its frames, because a half-sent piece is copied again with each send.
        if len(pieces) > 1 and max(map(len, pieces)) < LARGE_BYTES:
            pieces = [b"".join(pieces)]
        for piece in pieces:
            if rest := self._send_now(piece):
                self._adapter_emit_data(rest)

    def _send_now(self, data: bytes) -> bytes:
        """Return what the kernel did not take; with TLS, or behind something that waits, that is all of it.

        Pika itself watches the socket, waits for the next turn of the loop, sends, and stops watching: that
        costs more than the sending.
        """
        transport = self._transport
        sock = getattr(transport, "_sock", None)
        if type(sock) is not socket.socket or transport.get_write_buffer_size():
            return data
        try:
            sent = sock.send(data)
        except OSError:
            return data  # full, or broken: pika will find out by itself
        return data[sent:] if sent < len(data) else b""

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


class Hosts:
    """Whose turn it is. Made once for a sink or a source, so that it outlives their connections."""

    def __init__(self, options: AmqpOptions) -> None:
        self._addresses = options.addresses
        self._next = 0

    async def open(self, connect: Callable[[Address], Awaitable[None]]) -> None:
        """Afterwards `connect` has succeeded with one of them.

        It raises SinkUnavailable for a host that is not there; when all have failed this raises it too, with
        what was said of each.
        """
        reasons: list[str] = []
        while True:
            address = self._addresses[self._next]
            # Before the attempt: after a link that was lost the next one begins with another host as well.
            self._next = (self._next + 1) % len(self._addresses)
            try:
                return await connect(address)
            except SinkUnavailable as error:
                where = f"{address.host}:{address.port}: " if len(self._addresses) > 1 else ""
                reasons.append(f"{where}{error}")
            if len(reasons) == len(self._addresses):
                raise SinkUnavailable("; ".join(reasons))


def parameters(
    name: str, options: AmqpOptions, gateway: str, address: Address | None = None
) -> pika.ConnectionParameters:
    """Turn our options into pika's, for one of the hosts: `name` and `gateway` are what the broker shows.

    Raises ConfigError for a file of TLS that cannot be used.
    """
    address = address or options.addresses[0]
    tls = None
    if address.tls:
        try:
            context = client_context(options.tls)
        except ConfigError as error:
            raise ConfigError(f"sinks.{name}.amqp.tls: {error}") from None
        named = options.tls.server_name if options.tls is not None else None
        tls = pika.SSLOptions(context, named or address.host)
    if options.sasl == "external":
        credentials: Any = pika.credentials.ExternalCredentials()
    else:
        credentials = pika.PlainCredentials(address.user, address.password)
    return pika.ConnectionParameters(
        host=address.host,
        port=address.port,
        virtual_host=address.virtual_host,
        credentials=credentials,
        ssl_options=tls,
        heartbeat=int(options.heartbeat),
        connection_attempts=1,
        socket_timeout=options.open_timeout,
        stack_timeout=options.open_timeout,
        blocked_connection_timeout=None,  # how long a broker may block us is its operator's affair
        client_properties={"connection_name": f"{gateway} {name}"},
    )


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
        case exceptions.AuthenticationError():
            offered = (
                "; for EXTERNAL it needs rabbitmq_auth_mechanism_ssl" if "EXTERNAL" in str(error) else ""
            )
            return f"the broker does not offer SASL {error.args[0]}{offered}"
        case exceptions.ConnectionClosed() | exceptions.ChannelClosed():
            return f"closed by the broker: {error.reply_code} {error.reply_text}"
        case exceptions.AMQPHeartbeatTimeout():
            return "the broker's heartbeats stopped"
        case exceptions.IncompatibleProtocolError():
            said = explain_alert(str(error))
            return said or "the connection broke before the first word of AMQP; does the port want amqps://?"
        case exceptions.StreamLostError():
            return explain_alert(str(error)) or "the connection broke"
        case socket.gaierror():
            return f"the host name is not known: {error.strerror}"
        case ssl.SSLError():
            return explain_tls(error)
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
