"""Builds the native relay's extension: as hatchling's build hook, or by itself.

``TXDIRECTOR_NATIVE`` says what to do about it: unset, a build without compiler or Python headers goes on without the
extension, and the director then uses its Python relay, saying so; ``require``, such a build fails; ``off``, nothing is
built.

``python hatch_build.py [--into DIRECTORY] [COMPILER OPTION…]`` builds only the extension, by default where an editable
install looks for it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # run by itself
    BuildHookInterface = object  # type: ignore[assignment,misc]

PACKAGE = Path(__file__).parent / "director" / "relay"
#: It uses the limited API of Python 3.11, so that one build serves later versions too.
NAME = "_relay.abi3.so"
OPTIONS = ("-std=gnu11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden", "-pthread")


class BuildFailed(Exception):
    """Says why there is no extension."""


def build(into: Path, options: tuple[str, ...] = ()) -> Path:
    """Compile; returns the extension's path.

    :raises BuildFailed: no Linux, no compiler, no headers, or the compiler's complaint.
    """
    if sys.platform != "linux":
        raise BuildFailed("the native relay needs Linux: epoll and splice")
    extension = into / NAME
    into.mkdir(parents=True, exist_ok=True)
    here = f"-ffile-prefix-map={PACKAGE.parents[1]}=."  # what is debugged does not tell where it was built
    command = [
        *shlex.split(os.environ.get("CC", "cc")), *OPTIONS, here, *shlex.split(os.environ.get("CFLAGS", "")), *options,
        f"-I{sysconfig.get_paths()['include']}", "-shared", "-o", str(extension),
        *sorted(map(str, PACKAGE.glob("_relay*.c"))),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildFailed(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        raise BuildFailed(done.stderr.strip())
    return extension


class CustomBuildHook(BuildHookInterface):
    """Puts the extension into wheels, which are then a platform's, and beside the sources of an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        wanted = os.environ.get("TXDIRECTOR_NATIVE", "")
        if wanted == "off":
            return
        try:
            extension = build(PACKAGE)
        except BuildFailed as why:
            if wanted == "require":
                raise
            self.app.display_warning(f"building without the native relay: {why}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        build_data["force_include"][str(extension)] = f"director/relay/{NAME}"


def main() -> None:
    options = sys.argv[1:]
    into = PACKAGE
    if options[:1] == ["--into"]:
        into, options = Path(options[1]), options[2:]
    try:
        build(into, tuple(options))
    except BuildFailed as why:
        sys.exit(str(why))


if __name__ == "__main__":
    main()
