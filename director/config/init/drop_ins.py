"""Drop-ins for the units of deploy/systemd, by which systemd runs what `director init` wrote where it is. Pure."""

from __future__ import annotations

from director.config.init.writing import File

#: What it is called beside the files that it is about.
DROP_IN = "systemd.conf"
#: As deploy/systemd/txdirector.service.d/vips.conf has it.
_VIPS = """CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_BPF
AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW CAP_BPF
RestrictAddressFamilies=AF_PACKET
SystemCallFilter=bpf
"""


def director_drop_in(here: str, *, vips: bool) -> File:
    """For a director whose files are in *here*, where it also keeps its state."""
    return _drop_in("txdirector", f"/usr/bin/director run {_argument(f'{here}/director.toml')}",
                    f"ReadWritePaths={_quoted(here)}\n{_VIPS if vips else ''}")


def agent_drop_in(here: str) -> File:
    """For an agent whose files are in *here*."""
    return _drop_in("director-agent", f"/usr/bin/director-agent --config {_argument(f'{here}/agent.toml')}", "")


def _drop_in(unit: str, command: str, more: str) -> File:
    return File(f"# /etc/systemd/system/{unit}.service.d/cluster.conf; the user {unit} must own this directory.\n"
                f"[Service]\nExecStart=\nExecStart={command}\n{more}".encode())


def _argument(text: str) -> str:
    """Of a command: a dollar sign would name a variable."""
    return _quoted(text).replace("$", "$$")


def _quoted(text: str) -> str:
    """systemd.syntax(7), "Quoting"; a percent sign would be a specifier (systemd.unit(5))."""
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t"), ("%", "%%")):
        text = text.replace(plain, escaped)
    return f'"{text}"'
