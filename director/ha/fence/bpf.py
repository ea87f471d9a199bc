"""bpf(2): maps and programs of the kernel. They live as long as something holds them: a descriptor, or an interface."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361, "s390x": 351}
_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD, _INFO_BY_FD = 0, 2, 3, 5, 15
#: Of the kernel's `union bpf_attr`, as long as what is used here; longer ones are refused by older kernels.
_ATTRIBUTE_BYTES = 72
HASH, ARRAY = 1, 2  # BPF_MAP_TYPE_*
NO_PREALLOC, MMAPABLE = 0x1, 0x400  # BPF_F_*
_SCHED_CLS = 3  # BPF_PROG_TYPE_SCHED_CLS
#: Functions marked for the GPL's friends only are not used; the kernel wants to know all the same.
_LICENSE = b"Dual MIT/GPL"
_LOG_BYTES = 65_536
_NAME_BYTES = 16
_libc = ctypes.CDLL(None, use_errno=True)


def make_map(kind: int, key_bytes: int, value_bytes: int, entries: int, flags: int, name: str) -> int:
    """Its descriptor. Raises OSError."""
    return _command(_MAP_CREATE, struct.pack("=IIIIIII16s", kind, key_bytes, value_bytes, entries, flags, 0, 0,
                                             name.encode()[: _NAME_BYTES - 1]))


def update(table: int, key: bytes, value: bytes) -> None:
    """Raises OSError."""
    place, content = ctypes.create_string_buffer(key), ctypes.create_string_buffer(value)
    _command(_MAP_UPDATE, struct.pack("=IIQQQ", table, 0, ctypes.addressof(place), ctypes.addressof(content), 0))


def delete(table: int, key: bytes) -> None:
    """Raises OSError; ENOENT: there is no such key."""
    place = ctypes.create_string_buffer(key)
    _command(_MAP_DELETE, struct.pack("=IIQ", table, 0, ctypes.addressof(place)))


def load_classifier(code: bytes, name: str) -> int:
    """A program for traffic control; its descriptor.

    :raises OSError: the kernel refuses; what it says of the program is in the message.
    """
    try:
        return _load(code, name, None)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EINVAL):
            raise
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return _load(code, name, log)
        except OSError as again:
            said = log.value.decode(errors="replace").strip().splitlines()
            raise OSError(again.errno, f"{again.strerror} ({said[-2:]})") from None


def _load(code: bytes, name: str, log: ctypes.Array[ctypes.c_char] | None) -> int:
    program, license_ = ctypes.create_string_buffer(code), ctypes.create_string_buffer(_LICENSE)
    attribute = struct.pack(
        "=IIQQIIQII16s", _SCHED_CLS, len(code) // 8, ctypes.addressof(program), ctypes.addressof(license_),
        0 if log is None else 1, 0 if log is None else _LOG_BYTES, 0 if log is None else ctypes.addressof(log), 0, 0,
        name.encode()[: _NAME_BYTES - 1],
    )
    return _command(_PROG_LOAD, attribute)


def program_id(program: int) -> int:
    """The number by which interfaces name it. Raises OSError."""
    info = ctypes.create_string_buffer(8)  # type, id
    _command(_INFO_BY_FD, struct.pack("=IIQ", program, len(info), ctypes.addressof(info)))
    number: int = struct.unpack_from("=I", info, 4)[0]
    return number


def _command(command: int, attribute: bytes) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2) has no number here for {platform.machine()}")
    whole = ctypes.create_string_buffer(attribute, _ATTRIBUTE_BYTES)
    answer: int = _libc.syscall(number, command, whole, _ATTRIBUTE_BYTES)
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return answer
