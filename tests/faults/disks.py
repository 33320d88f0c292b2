"""File systems of the tests' own: small, or such that a moment of them can be kept."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.servers import binary, missing

__all__ = ["CountedDisk", "FailingDisk", "PluggedDisk", "mounted", "run"]


def run(*command: str | Path) -> None:
    """Run a command; what it says is the error where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")


@contextlib.contextmanager
def mounted(place: Path, *what: str | Path) -> Iterator[Path]:
    """`mount WHAT PLACE` while inside; the test ends as `missing` says where that is forbidden."""
    if os.geteuid():
        missing("root, to mount a file system")
    place.mkdir(exist_ok=True)
    try:
        run("mount", *what, place)
    except RuntimeError as error:
        missing(f"the right to mount ({error})")
    try:
        yield place
    finally:
        run("umount", "--lazy", place)


class PluggedDisk:
    """A disk, with `kind` of file system on it, whose plug can be pulled again and again while it goes on.

    It is a file in an XFS file system, so `keep` can write down what is on the disk at
    one moment: a copy that shares all its blocks is made at one stroke. What the kernel
    holds for the disk and has not sent to it is not in it, nor is what its file system has
    only in its journal's memory: just as when the power goes.
    """

    KINDS: Mapping[str, tuple[str, tuple[str, ...], str]] = {
        # how large, how it is made, and what mounting a copy beside the original asks for
        "ext4": ("192M", ("mkfs.ext4", "-q", "-F", "-m", "0"), "loop"),
        "xfs": ("320M", ("mkfs.xfs", "-q"), "loop,nouuid"),
    }

    def __init__(self, folder: Path, rooms: contextlib.ExitStack, kind: str = "ext4") -> None:
        self._folder = folder
        size, (make, *options), self._mount = self.KINDS[kind]
        pool = folder / "pool.img"
        run("truncate", "-s", "2G", pool)
        run(binary("mkfs.xfs"), "-q", "-m", "reflink=1", pool)
        self._pool = rooms.enter_context(mounted(folder / "pool", "-o", "loop", pool))
        self._disk = self._pool / "disk.img"
        run("truncate", "-s", size, self._disk)
        run(binary(make), *options, self._disk)
        self.path = rooms.enter_context(mounted(folder / "disk", "-o", "loop", self._disk))

    def keep(self, image: Path) -> None:
        """Write down what is on the disk now."""
        run("cp", "--reflink=always", self._disk, image)

    @contextlib.contextmanager
    def found(self, image: Path) -> Iterator[Path]:
        """What somebody finds who plugs it in again; afterwards the image is gone."""
        try:
            with mounted(self._folder / "found", "-o", self._mount, image) as place:
                yield place
        finally:
            image.unlink()


class CountedDisk:
    """A disk with ext4 on it, of which every sector that it is sent is counted."""

    SIZE = "4G"

    def __init__(self, folder: Path) -> None:
        self._rooms = contextlib.ExitStack()
        image = folder / "counted.img"
        run("truncate", "-s", self.SIZE, image)
        # As Debian makes it, but for tables that the kernel would write meanwhile.
        run(binary("mkfs.ext4"), "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
        self.path = self._rooms.enter_context(mounted(folder / "counted", "-o", "loop", image))
        found = os.stat(self.path).st_dev
        self._counts = Path(f"/sys/dev/block/{os.major(found)}:{os.minor(found)}/stat")

    def __enter__(self) -> CountedDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self._rooms.close()

    def settle(self) -> None:
        """Afterwards the disk has been sent all that the kernel still held for it."""
        run("sync", "-f", self.path)

    @property
    def written_bytes(self) -> int:
        """What it has been sent so far: data, metadata and journal."""
        return int(self._counts.read_text().split()[6]) * 512


class FailingDisk:
    """A block device with ext4 on it that fails every write while `failing` says so.

    As on any Linux, what could not be written is forgotten, and the next sync of the
    same file may succeed without it. Whole in a process of its own: nbdkit's memory,
    shown as a file by nbdfuse, with a loop device on it.
    """

    def __init__(self, folder: Path) -> None:
        self._trigger = folder / "trigger"
        self._fuse = folder / "fuse"
        self._fuse.mkdir()
        self._place = folder / "disk"
        self._place.mkdir()
        error = ("error-pwrite=EIO", "error-pwrite-rate=100%", f"error-file={self._trigger}")
        command = [
            binary("nbdfuse"), str(self._fuse / "nbd"),
            "--command", binary("nbdkit"), "-s", "--filter=error", "memory", "128M", *error,
        ]  # fmt: skip
        if os.geteuid():
            missing("root, to mount a file system")
        self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not (self._fuse / "nbd").exists():
            if self._server.poll() is not None or time.monotonic() > deadline:
                missing("the right to mount with FUSE")
            time.sleep(0.02)
        run(binary("mkfs.ext4"), "-q", "-F", "-m", "0", self._fuse / "nbd")

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        self._trigger.touch()
        try:
            yield
        finally:
            self._trigger.unlink()

    @contextlib.contextmanager
    def plugged_in(self) -> Iterator[Path]:
        """Its file system, mended and mounted as after a start of the machine."""
        nbd = self._fuse / "nbd"
        mended = subprocess.run([binary("e2fsck"), "-fy", nbd], capture_output=True, text=True, timeout=60)
        assert mended.returncode < 4, mended.stdout
        device = subprocess.run(
            [binary("losetup"), "-f", "--show", nbd], capture_output=True, text=True, check=True, timeout=60
        ).stdout.strip()
        try:
            run("mount", device, self._place)
            try:
                yield self._place
            finally:
                run("umount", self._place)
        finally:
            run("losetup", "-d", device)

    def close(self) -> None:
        run("umount", self._fuse)
        self._server.wait(10)
