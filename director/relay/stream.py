"""One direction of a connection: bytes read at one end, written to the other.

No events, no clock of their own, no epoll: the functions make the system calls, and leave in the two `End` records what they
learnt.
The rules of edge-triggered readiness:

- *readable* and *writable* say "not known to block". An event sets them; EAGAIN clears them. So do a short read and a
  partial write, which prove the same without another call.
- A short read after the peer's FIN was announced proves the end of the stream.
- Nothing is read unless the other end takes it: at most one chunk, or one pipe's content, is on its way.
"""

from __future__ import annotations

import errno
import os

from director.relay.link import End
from director.relay.pipes import SPLICE_BYTES, PipePool

#: One read by copying, and so what a stalled direction may hold. A read that fills it proves bulk.
CHUNK_BYTES = 32_768
#: What one direction may move before others get their turn.
TURN_BYTES = 524_288
#: Errors that are the peer's or the path's end. Any other is the kernel refusing *us*, and is let out.
PEER_ERRORS = frozenset(
    {
        errno.EPIPE,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ENOTCONN,
        errno.EPROTO,
    }
)
_SPLICE_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


def pump(source: End, target: End, pipes: PipePool, now_s: float) -> bool:
    """Move what there is from *source* to *target* until either would block, ends or breaks.

    :param now_s: noted as the time of any progress, and of the first bytes of whose turn it was to speak.
    :returns: whether it stopped only because its turn was over.
    :raises OSError: the kernel refused memory or the like; the peers are not to blame.
    """
    start, fresh = source.moved, source.hold is None and not source.piped
    turn_is_over = False
    while target.writable:
        if source.piped:
            _empty_pipe(source, target)
        elif source.hold is not None:
            write(source, target, source.hold)
        elif not source.readable or source.eof:
            break
        elif source.moved - start >= TURN_BYTES:
            turn_is_over = True
            break
        elif source.bulk and not source.urgent and _has_pipe(source, pipes):
            _fill_pipe(source, pipes)
        else:
            forward(source, target)
    if source.pipe is not None and not source.piped:
        pipes.give(source.pipe)
        source.pipe = None
    if source.bulk and source.moved - start < CHUNK_BYTES and target.writable:
        source.bulk = False  # small messages again: two splices cost more than one copy
    if source.moved != start or source.hold is not None or source.piped:
        source.moved_since(start, fresh, now_s)
    return turn_is_over


def forward(source: End, target: End) -> bool:
    """Read once and write at once what was read; nothing may be on its way.

    :returns: whether it was a whole small message and the target took all of it: both ends are as before.
    :raises OSError: as `pump`.
    """
    try:
        data = os.read(source.fd, CHUNK_BYTES)
    except OSError as error:
        cannot_read(source, error)
        return False
    size = len(data)
    if size == CHUNK_BYTES:
        source.readable = source.bulk = True
        write(source, target, data)
        return False
    if not size:
        source.eof = True
        return False
    if not (source.broken or source.urgent):  # those are read until they say that there is no more
        source.readable = False
        source.eof = source.finishing
    return write(source, target, data)


def write(source: End, target: End, data: bytes) -> bool:
    """Have *target* take *data*; what it does not take stays on hold at *source*. Returns whether it took all."""
    try:
        sent = os.write(target.fd, data)
    except OSError as error:
        source.hold = data
        cannot_write(target, error)
        return False
    source.moved += sent
    if sent == len(data):
        source.hold = None
        return True
    source.hold = data[sent:]
    target.writable = False
    return False


def _has_pipe(source: End, pipes: PipePool) -> bool:
    if source.pipe is None:
        source.pipe = pipes.take()
    return source.pipe is not None


def _fill_pipe(source: End, pipes: PipePool) -> None:
    """Splice into the pipe, which is empty: so EAGAIN is the socket's."""
    assert source.pipe is not None
    try:
        source.piped = os.splice(source.fd, source.pipe.writer, SPLICE_BYTES, flags=_SPLICE_FLAGS)
    except OSError as error:
        cannot_read(source, error)
        return
    pipes.spliced_bytes += source.piped
    if not source.piped:  # the end, or an urgent mark right before the end: reading tells
        source.bulk = False


def _empty_pipe(source: End, target: End) -> None:
    assert source.pipe is not None
    try:
        sent = os.splice(source.pipe.reader, target.fd, source.piped, flags=_SPLICE_FLAGS)
    except OSError as error:
        cannot_write(target, error)
        return
    source.piped -= sent
    source.moved += sent


def cannot_read(source: End, error: OSError) -> None:
    source.readable = False
    if isinstance(error, BlockingIOError):
        return
    if error.errno not in PEER_ERRORS:
        raise error
    source.eof = True
    source.broken = source.broken or error.errno or errno.EIO


def cannot_write(target: End, error: OSError) -> None:
    target.writable = False
    if isinstance(error, BlockingIOError):
        return
    if error.errno not in PEER_ERRORS:
        raise error
    target.broken = target.broken or error.errno or errno.EIO
