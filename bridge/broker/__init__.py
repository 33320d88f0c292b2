"""The device side: sockets, sessions, and what comes in and goes out through them.

    listener → link ⇄ (bridge.mqtt) Connection
                 │
                 ├─ inlet     PUBLISH from a device → logs, subscribers; the hot path
                 ├─ broker    who is here: CONNECT, SUBSCRIBE, wills, take-over, sessions that end
                 ├─ delivery  downlink log and memory → sessions → links
                 └─ retained  the last word on each topic

Everything runs on one event loop, in stretches without `await`: between two
reads nothing changes under anyone's hands. Answers that mean "on disk" leave
from one place only, `Link.committed`, which the committer calls.
"""
