"""Who writes into a folder: one process at a time, known by a lock that neither a kill nor a reboot leaves behind.

The lock is `flock` on the file `.owner` of the folder, which the kernel gives up when the process is gone, however
it went; a forked child that outlives it keeps the lock until it ends as well. The file names its owner to those who
come too late; without the lock its text means nothing, so a stale one is simply taken over. On NFS, Linux keeps
the lock between hosts unless the mount says `local_lock`, which keeps it within each host. Where a file system has no
locks (Lustre without `-o flock`), the folder is used unguarded, and a warning says so.
"""

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from cccad_data.errors import FolderInUseError, StorageError

OWNER = ".owner"
_GRACE_S, _POLL_S = 0.5, 0.1  # who has just been killed, or only looked who the owner is, is gone within this
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_MOST_CHARACTERS = 200
_LOG = logging.getLogger(__name__)


@contextmanager
def owned(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Own *folder*, which is made if it is missing, until the block ends.

    When another owns it, *wait* says so in a warning of this module's logger and waits until it is free.

    Raises FolderInUseError when another owns it and we do not wait, and StorageError when the lock cannot be written.
    """
    path = folder.absolute() / OWNER
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _claimed(path, folder, wait=wait)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        if _is_at(path, descriptor):
            path.unlink(missing_ok=True)  # before the lock goes: who waits for this file sees that it is not there
        os.close(descriptor)


def owner_of(folder: Path) -> str:
    """Return who is writing into *folder*, such as `process 12 on host since ...`, or nothing if nobody is."""
    with suppress(OSError):
        descriptor = os.open(folder / OWNER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _named(descriptor)
        finally:
            os.close(descriptor)
    return ""


def lock(descriptor: int) -> bool:
    """Lock an open file until it is closed; say whether that worked, which it does not if another has locked it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove_abandoned(partial: Path) -> None:
    """Delete a file that was being written, unless its writer lives and holds its lock."""
    with suppress(OSError):
        descriptor = os.open(partial, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if lock(descriptor):
                partial.unlink()
        finally:
            os.close(descriptor)


def _claimed(path: Path, folder: Path, *, wait: bool) -> int:
    """Return a descriptor that holds the lock."""
    start, announced = time.monotonic(), ""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            if _is_ours(descriptor, path):
                return descriptor
            owner = _named(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if time.monotonic() - start > _GRACE_S:
            sentence = f"{folder} is being written by {owner}"
            if not wait:
                raise FolderInUseError(f"{sentence}; wait for it or choose another folder")
            if owner != announced:
                _LOG.warning("%s; waiting for it", sentence)
                announced = owner
        time.sleep(_POLL_S)


def _is_ours(descriptor: int, path: Path) -> bool:
    try:
        if not lock(descriptor):
            return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _LOG.warning("%s: this file system has no locks; see that only one process at a time writes here", path.parent)
    if not _is_at(path, descriptor):
        return False  # the earlier owner took the file away after we had opened it
    name = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    with suppress(OSError):  # a full disk: the lock holds without its text
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, name.encode(), 0)
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Say whether *path* still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _named(descriptor: int) -> str:
    text = os.pread(descriptor, _MOST_CHARACTERS, 0).decode(errors="replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text) or "another process"
