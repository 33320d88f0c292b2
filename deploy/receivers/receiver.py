"""A receiver for edgespool in Python; needs only pyzmq. The wire is described in PROTOCOL.md.

python receiver.py tcp://gateway:5556 messages.jsonl     (add --bind where gateways call us)
"""

import contextlib
import json
import os
import sys

import zmq

bind = "--bind" in sys.argv
endpoint, path = [word for word in sys.argv[1:] if word != "--bind"]
socket = zmq.Context().socket(zmq.ROUTER if bind else zmq.DEALER)
socket.set(zmq.HEARTBEAT_IVL, 2000)
socket.set(zmq.RCVHWM, 0)
if bind:
    socket.bind(endpoint)
else:
    socket.set(zmq.PROBE_ROUTER, 1)  # both together: every new connection is announced
    socket.set(zmq.IMMEDIATE, 1)
    socket.connect(endpoint)


def say(to: list[bytes], *frames: bytes) -> None:
    with contextlib.suppress(zmq.Again):  # the connection broke; the gateway will ask again
        socket.send_multipart([*to, *frames], zmq.NOBLOCK)


with open(path, "a", encoding="utf-8") as out:
    while True:
        frames = socket.recv_multipart()
        to = [frames.pop(0)] if bind else []
        if frames[0] == b"WHO":
            say(to, b"HELLO", json.dumps({"version": 1, "window": 10000, "name": "receiver.py"}).encode())
        elif frames[0] == b"BATCH":
            for message, payload in zip(json.loads(frames[2]), frames[3:], strict=True):
                message["payload"] = payload.decode(errors="replace")
                out.write(json.dumps(message, ensure_ascii=False) + "\n")
            out.flush()
            os.fsync(out.fileno())  # answered means safe: without this line a power cut here loses the batch
            say(to, b"ACK", frames[1])
        elif frames[0] == b"SORRY":
            sys.exit(f"{endpoint}: {frames[1].decode()}")
