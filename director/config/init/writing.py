"""Many files written as one: all are there, or none."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from director.config.self_signed import write_new

#: Of directories that hold secrets, and of those that others must get through to their own. Neither is listed to others.
_PRIVATE, _PASSAGE = 0o700, 0o711
#: What a rename onto something that is there answers: it is never overwritten.
_THERE = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})


class File(NamedTuple):
    content: bytes
    mode: int = 0o644


class AlreadyThere(Exception):
    """Something is where the files should go. Nothing was changed."""


def refuse_if_there(directory: Path) -> None:
    """For a look before anything is asked; `write_tree` decides by itself.

    :raises AlreadyThere: something is there, but for an empty directory.
    """
    if directory.is_symlink() or (directory.exists() and not (directory.is_dir() and not any(directory.iterdir()))):
        raise AlreadyThere(f"{directory} is there already, and stays as it is")


def write_tree(directory: Path, files: Mapping[str, File]) -> None:
    """Make *directory* with *files*, by their paths within it; one that is there and empty is replaced. Directories above it
    that are missing are made, too.

    They are written beside it and renamed, so that nobody ever sees a part of them; the kernel refuses to rename onto
    anything else.

    :raises AlreadyThere: there is something.
    :raises OSError: it cannot be written; nothing is left.
    """
    missing = [each for each in (directory.parent, *directory.parent.parents) if not each.exists()]
    with contextlib.ExitStack() as undo:
        for above in reversed(missing):
            above.mkdir()
            undo.callback(above.rmdir)
        _write_tree(directory, files)
        undo.pop_all()


def _write_tree(directory: Path, files: Mapping[str, File]) -> None:
    beside = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for name, file in files.items():
            path = beside / name
            for parent in reversed(path.parents):
                if parent.is_relative_to(beside) and not parent.exists():
                    parent.mkdir(_PRIVATE)
            write_new(path, file.content, mode=0o600)
            path.chmod(file.mode)
        secret = {(beside / name).parent for name, file in files.items() if not file.mode & 0o077}
        for place in {parent for name in files for parent in (beside / name).parents if parent.is_relative_to(beside)}:
            place.chmod(_PRIVATE if place in secret else _PASSAGE)
        try:
            beside.rename(directory)
        except OSError as error:
            if error.errno in _THERE:
                raise AlreadyThere(f"{directory} is there already, and stays as it is") from error
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def replace(files: Mapping[Path, bytes]) -> None:
    """Give files that are there new content, with their mode and owner; each has the old content or the new one.

    All new content is on the disk before the first file has it.

    :raises OSError: it cannot be written. Unless renaming itself failed, nothing was changed.
    """
    made: dict[Path, Path] = {}
    try:
        for path, content in files.items():
            there = path.stat()
            descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            made[path] = Path(name)
            with open(descriptor, "wb") as file:
                file.write(content)
                if os.geteuid() == 0:
                    os.fchown(file.fileno(), there.st_uid, there.st_gid)
                os.fchmod(file.fileno(), there.st_mode & 0o777)
        for path, beside in made.items():
            beside.replace(path)
    finally:
        for beside in made.values():
            beside.unlink(missing_ok=True)
