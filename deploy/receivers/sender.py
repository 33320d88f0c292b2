"""Sends commands to a gateway over the acknowledged protocol of PROTOCOL.md; needs only pyzmq.

python sender.py tcp://gateway:5557 plant-7.press-1 < commands.txt

Each line is one command for that address. The exit code is 1 when one was refused.
"""

import json
import sys
import uuid

import zmq

endpoint, address = sys.argv[1:]
socket = zmq.Context().socket(zmq.DEALER)
socket.set(zmq.LINGER, 1000)
socket.set(zmq.HEARTBEAT_IVL, 2000)
socket.connect(endpoint)
refused = {}
for number, line in enumerate(sys.stdin.buffer.read().splitlines()):
    # The id is that of the command, however often it has to be sent.
    about = json.dumps([{"id": str(uuid.uuid4()), "topic": "", "address": address}]).encode()
    batch, frames = b"%d" % number, [b"BYE"]
    while frames != [b"ACK", batch]:  # only then it is on the gateway's disk, or refused
        if frames[0] == b"BYE":  # nobody has answered, or the gateway starts again: say who we are
            socket.send_multipart([b"WHO", b'{"version": 1, "gateway": "sender.py"}'])
        elif frames[0] == b"HELLO":
            socket.send_multipart([b"BATCH", batch, about, line])
        elif frames[0] == b"REFUSE":
            refused[frames[1]] = f"{line.decode(errors='replace')}: {frames[3].decode()}"
        elif frames[0] == b"SORRY":
            sys.exit(f"{endpoint}: {frames[1].decode()}")
        frames = socket.recv_multipart() if socket.poll(2000) else [b"BYE"]
socket.send_multipart([b"BYE"])
if refused:
    sys.exit("refused: " + "\n".join(refused.values()))
