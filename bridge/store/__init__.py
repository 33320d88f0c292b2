"""The disk: what lies there, and how it is found again.

    STATE/                          0700; files 0600
    ├── lock                        held while a process uses the store
    ├── uplink/                     messages on their way to the cloud
    │   ├── 00000000000000000000.seg    a segment, named by the position of its first byte
    │   ├── 00000000000016776960.seg
    │   └── cursors/ROUTE.cur           how far one route has got
    ├── downlink/                   messages on their way to sleeping devices
    ├── dead/                       messages the cloud refused for good, each with its reason
    ├── tables/                     sessions.tab, retained.tab, marks.tab
    └── damaged/                    copies of what was cut off or skipped

All integers are little-endian.

    segment := header | header | record* | zeros
    header  := "edgespl\\n" | version u8 (= 1) | zero × 3 | salt u32 | base u64
               | sequence u64 | epoch u32 | crc32 u32 | zeros up to 64 bytes
    record  := crc32 u32 | magic u16 (= 0xD05E) | kind u8 | zero u8 | length u32
               | sequence u64 | body of `length` bytes, MessagePack
    cursor  := slot | slot
    slot    := magic u32 (version in its last byte) | position u64 | turn u64 | crc32 u32

A position counts bytes since the log began and never comes back. A record's CRC
starts from the salt of its segment and covers everything behind itself. A table
is a segment of PUT and DELETE records.

*Safe* means: written, fdatasync returned, and for a new file the folder synced
too. Only then does `durable` move, and only then is a PUBACK or PUBREC sent.

Recovery, at every start, the same after a clean stop and a power cut:

1. A segment or a cursor of a newer version stops the start before a byte is
   written. A lock held by another process does so too.
2. The newest segment of each log is scanned. Bytes that are no record and have
   none behind them are a torn write: `durable` ends before them, a copy is kept,
   and the next commit begins a new segment. With whole records behind them they
   are rot: stepped over, kept, counted. No whole record is ever thrown away.
3. Older segments are not read until a reader comes there; damage found then is
   treated in the same way.
4. A cursor outside of its log goes back to the oldest message. That repeats
   messages, with the same ids; it never skips one.

A segment ends where the next one begins, so bytes that a failed commit left
behind never count. Segments wholly before the lowest cursor are unlinked.
"""

from bridge.store.commit import Committer
from bridge.store.cursor import Cursor
from bridge.store.log import Log
from bridge.store.record import Entry
from bridge.store.spool import Spool
from bridge.store.table import Table
from bridge.store.window import Window

__all__ = ["Committer", "Cursor", "Entry", "Log", "Spool", "Table", "Window"]
