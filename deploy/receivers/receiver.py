"""A receiver for edgespool in Python; needs only pyzmq. The wire is described in PROTOCOL.md and PACKS.md.

python receiver.py tcp://gateway:5556 messages.jsonl     (add --bind where gateways call us)

With CURVE, add --secret-key FILE and --server-key FILE, or where gateways call us --secret-key FILE
and --clients FILE. `edgespool keygen` makes such files.
"""

import argparse
import contextlib
import json
import os
import sys
import zlib
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import zmq
from zmq.auth.thread import ThreadAuthenticator

PACK_BYTES_MAX = 1 << 20

words = argparse.ArgumentParser()
words.add_argument("endpoint")
words.add_argument("path")
words.add_argument("--bind", action="store_true")
words.add_argument("--secret-key", type=Path)
words.add_argument("--server-key", type=Path)
words.add_argument("--clients", type=Path)
said = words.parse_args()


def keys(path: Path) -> list[bytes]:
    """The first word of each line."""
    return [line.split()[0] for line in path.read_bytes().splitlines() if line.strip()]


class Clients:
    """Asked for each gateway that calls us."""

    def callback(self, _domain: str, key: bytes) -> bool:
        """Whether it is let in."""
        return key in keys(said.clients)


context = zmq.Context()
socket = context.socket(zmq.ROUTER if said.bind else zmq.DEALER)
socket.set(zmq.HEARTBEAT_IVL, 2000)
socket.set(zmq.HEARTBEAT_TIMEOUT, 60_000)  # on a slow line a heartbeat stands behind a batch
socket.set(zmq.RCVHWM, 0)
if said.secret_key:
    [secret] = keys(said.secret_key)
    socket.curve_secretkey, socket.curve_publickey = secret, zmq.curve_public(secret)
    if said.bind:
        gate = ThreadAuthenticator(context)  # knows who is let in
        gate.start()
        gate.configure_curve_callback("edgespool", Clients())
        socket.curve_server = True
        socket.zap_domain = b"edgespool"
        socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without an answer from the gate nobody is
    else:
        [socket.curve_serverkey] = keys(said.server_key)
# After these two ZeroMQ does not call again.
failed = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
if said.bind:
    socket.bind(said.endpoint)
else:
    socket.set(zmq.PROBE_ROUTER, 1)  # both together: every new connection is announced
    socket.set(zmq.IMMEDIATE, 1)
    socket.connect(said.endpoint)


def say(to: list[bytes], *frames: bytes) -> None:
    with contextlib.suppress(zmq.Again):  # the connection broke; the gateway will ask again
        socket.send_multipart([*to, *frames], zmq.NOBLOCK)


def parts(data: bytes) -> Iterator[bytes]:
    """What lies in `data`, each behind its length."""
    while data:
        size = int.from_bytes(data[:4], "big")
        yield data[4 : 4 + size]
        data = data[4 + size :]


def unpacked(meta: dict, payload: bytes) -> list[tuple[dict, bytes]]:
    """The messages of a pack with their payloads, or the one message that is no pack."""
    form = meta.get("headers", {}).get("pack")
    if not form:
        return [(meta, payload)]
    if meta.get("content_encoding") == "deflate":
        payload = zlib.decompressobj().decompress(payload, PACK_BYTES_MAX)
    elif meta.get("content_encoding") == "zstd":
        import zstandard  # pip install zstandard

        payload = zstandard.ZstdDecompressor().decompress(payload, max_output_size=PACK_BYTES_MAX)
    if form == "length_prefixed":
        each = list(parts(payload[4:]))
        found = [(json.loads(head), body) for head, body in zip(each[::2], each[1::2], strict=True)]
    else:
        told = json.loads(payload) if form == "json" else [json.loads(line) for line in payload.splitlines()]
        found = [(one, b64decode(one.pop("payload_b64", "")) or one["payload"].encode()) for one in told]
    return [(one | one.pop("properties"), body) for one, body in found]


with open(said.path, "a", encoding="utf-8") as out:
    while True:
        if not said.bind and failed in zmq.select([socket, failed], [], [])[0]:
            sys.exit(f"{said.endpoint}: not let in; is our key among its clients, do both ends use keys?")
        frames = socket.recv_multipart()
        to = [frames.pop(0)] if said.bind else []
        if frames[0] == b"WHO":
            say(to, b"HELLO", json.dumps({"version": 1, "window": 10000, "name": "receiver.py"}).encode())
        elif frames[0] == b"BATCH":
            for meta, body in zip(json.loads(frames[2]), frames[3:], strict=True):
                for message, payload in unpacked(meta, body):
                    message["payload"] = payload.decode(errors="replace")
                    out.write(json.dumps(message, ensure_ascii=False) + "\n")
            out.flush()
            os.fsync(out.fileno())  # answered means safe: without this line a power cut here loses the batch
            say(to, b"ACK", frames[1])
        elif frames[0] == b"SORRY":
            sys.exit(f"{said.endpoint}: {frames[1].decode()}")
