"""``/running.txt``: the state as lines of words, in the grammar of PythonDirector.

The grammar is in ``docs/reference/running.txt.md``, and scripts that read the ancestor's page read this one. A host is
on a ``host`` line while it takes new connections, and on a ``disabled`` line, with the reason, while it does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote

from twisted.web.server import Request

from director.admin.control import Caller, Control
from director.admin.gate import Gate
from director.admin.web import Page, is_read, only_read
from director.core.snapshot import GroupPicture, HostPicture, ServicePicture
from director.timing.courtesy import politely

#: What may be asked for, as `director.admin.looking.services` takes it; other parameters are passed over.
PAGING = ("limit", "after")
#: What separates words, and the comma, which separates addresses; only paths of UNIX sockets can hold them.
_SEPARATOR = re.compile(r"[\s,]")


def running_text(services: Iterable[ServicePicture]) -> str:
    return "".join(f"{line}\n" for service in services for line in _service(service))


def _service(service: ServicePicture) -> Iterator[str]:
    listen = ",".join(map(_word, service.listen)) or "-"
    yield f"service {service.name} {listen} {service.enabled or '-'}"
    for group in service.groups:
        yield from _group(group)


def _group(group: GroupPicture) -> Iterator[str]:
    yield f"group {group.name} {'enabled' if group.enabled or group.share else 'inactive'}"
    hosts = sorted(group.hosts, key=lambda host: host.address)
    for host in hosts:
        if host.in_rotation:
            yield f"{_named('host', host)} {host.in_flight} -"
    for host in hosts:
        if not host.in_rotation:
            yield f"{_named('disabled', host)} {' '.join(host.why_not.split()) or 'unknown'} -"


def _named(kind: str, host: HostPicture) -> str:
    return f"{kind} {host.name} {_word(host.address)}"


def _word(address: str) -> str:
    return _SEPARATOR.sub(lambda found: quote(found[0]), address)


class RunningText(Page):
    """The resource ``/running.txt``."""

    def __init__(self, gate: Gate, control: Control) -> None:
        super().__init__(gate)
        self._control = control

    async def answer(self, caller: Caller, request: Request) -> bytes:
        if not is_read(request):
            return only_read(request)
        asked = {name: values[-1].decode("utf-8", "replace") for name in PAGING
                 if (values := (request.args or {}).get(name.encode()))}
        services: Sequence[ServicePicture] = await self._control.call(caller, "services", asked, text=True)
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        return running_text(politely(services, 1)).encode()
