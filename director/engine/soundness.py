"""What a record of the store must be besides its type, as what comes from files must. Pure."""

from __future__ import annotations

import msgspec

from cluster.address import parse_address
from cluster.keys import RegisteredKey, ServiceKey
from cluster.model import Registered, Service
from cluster.validate import join
from cluster.view import Checked
from director.config.check import service_errors


def sound_service(place: ServiceKey, service: Service) -> Checked[Service]:
    """A host with a wrong address costs itself, any other error the service."""
    problems, groups = [], {}
    for name, group in service.groups.items():
        hosts = {}
        for host_name, host in group.hosts.items():
            if why := _wrong(host.address):
                at = join("services", place.service, "groups", name, "hosts", host_name, "address")
                problems.append(f"{at}: {why}; the host is left out")
            else:
                hosts[host_name] = host
        groups[name] = msgspec.structs.replace(group, hosts=hosts) if len(hosts) < len(group.hosts) else group
    sound: Service = msgspec.structs.replace(service, groups=groups) if problems else service
    wrong = [str(problem) for problem in service_errors(place.service, sound)]
    return Checked(None if wrong else sound, [*problems, *wrong])


def sound_registration(place: RegisteredKey, registered: Registered) -> Checked[Registered]:
    why = _wrong(registered.host.address)
    return Checked(None if why else registered, [f"host.address: {why}"] if why else [])


def _wrong(address: str) -> str:
    try:
        parse_address(address)
    except ValueError as error:
        return str(error)
    return ""
