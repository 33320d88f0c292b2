"""The disk: what lies there, and how it is found again.

    STATE/                          0700; files 0600
    ├── lock                        held while a process uses the store
    ├── uplink/                     messages on their way to the cloud
    │   ├── 00000000000000000000.seg    a segment, named by the position of its first byte
    │   ├── 00000000000016776960.seg
    │   ├── BEGIN-END.spare             a passed segment's file, for the next one (`bridge.store.spares`)
    │   ├── cursors/ROUTE.cur           how far one route has got
    │   └── aside/ROUTE/BEGIN-END.mvd   what a slow route still wants between two positions
    ├── downlink/                   messages on their way to sleeping devices
    ├── dead/                       messages the cloud refused for good, each with its reason
    ├── reserve                     room for the house's own words on a disk that is full
    ├── tables/                     sessions.tab, retained.tab, marks.tab, settled.tab
    ├── replays/, letters/          orders to the running gateway, see bridge.forward.orders
    └── damaged/                    copies of what was cut off or skipped

All integers are little-endian.

    segment := header | header | record* | rest
    header  := "edgespl\\n" | version u8 (1 or 2) | zero × 3 | salt u32 | base u64 | follows u64
               | sequence u64 | epoch u32 | earlier | crc32 u32 | zeros up to 64 bytes
    version 1: a new file;         earlier := nothing,             rest := zeros
    version 2: a file used again;  earlier := salt u32 | base u64, rest := zero × 20 | older records
    record  := crc32 u32 | magic u16 (from the salt) | kind u8 | zero u8 | length u32
               | sequence u64 | body of `length` bytes, MessagePack
    cursor  := slot | slot | slot
    slot    := magic u32 (version in its last byte) | position u64 | turn u64 | length u16
               | note of `length` bytes | zeros | crc32 u32                       512 bytes

A position counts bytes since the log began and never comes back. A record's CRC
starts from the salt of its segment and its own position, and covers everything
behind itself. A table is a segment of PUT and DELETE records.

*Safe* means: written, fdatasync returned, and for a new file the folder synced
too. Only then does `durable` move, and only then is a PUBACK or PUBREC sent.

Recovery, at every start, the same after a clean stop and a power cut:

1. A segment, cursor or table of a newer version stops the start before a byte is
   written. A lock held by another process does so too.
2. The newest segment of each log is scanned. Bytes that are neither record nor rest
   and have no record behind them are a torn write: a copy is kept, and the next commit
   begins a new segment behind them. With whole records behind them they are rot: stepped
   over, kept, counted. No whole record is ever thrown away.
3. What the scan found is synced, and so are the names. A process that was killed
   may have written it without; from now on readers see it and build on it.
4. Older segments are not read until a reader comes there; damage found then is
   treated in the same way.
5. Where the log ends before a place it had reached (by a cursor, by a segment
   that lost its header) it goes on behind that place, with higher sequence
   numbers: neither positions nor numbers come back with other contents.
6. A cursor without a readable position goes back to the oldest message. That
   repeats messages, with the same ids; it never skips one.

A segment's records end where the next one says that it follows, so bytes that a
failed commit left behind never count. Segments wholly before the lowest cursor
are let go, or first kept for a while as history (`bridge.store.history`): one or two
files stay, for the next segments to be written to, the others are unlinked. Where one
cursor is far behind the others, the few records that its route wants of a segment are
copied to a file in aside/, a segment of MOVED records that keep the position and the
number they had, and the segment is let go too.
"""

from bridge.store.commit import Committer
from bridge.store.cursor import Cursor
from bridge.store.log import Log
from bridge.store.reader import Reader, cursor_names
from bridge.store.record import Entry
from bridge.store.settled import Settled
from bridge.store.spool import Spool
from bridge.store.table import Table
from bridge.store.window import Window

__all__ = [
    "Committer",
    "Cursor",
    "Entry",
    "Log",
    "Reader",
    "Settled",
    "Spool",
    "Table",
    "Window",
    "cursor_names",
]
