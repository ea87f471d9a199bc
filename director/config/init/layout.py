"""The files of a new cluster, and what is in each. Pure but for the randomness of keys and tokens.

    authority/ca.pem, ca.key.pem            stays where it is, or goes to a safe place
    directors/NAME/director.toml            with its certificates and keys, the peers' secret and the admin's users
    agents/NAME/agent.toml                  with its certificate, key and token
    …/NAME/systemd.conf                     has systemd run either
    services.toml                           for `director bootstrap`, where there is etcd; else director.toml has them

Every machine has its directory at the same path, since the files name each other by whole paths. Who is who:

- a director, to the others, by the DNS name ``NAME.directors.internal`` and by the cluster's secret, both;
- a director, to agents and browsers, by the address that they connect to;
- an agent by a certificate of this authority, and by its token, which says for whom it speaks.
"""

from __future__ import annotations

import datetime
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tomli_w

from cluster.address import Address
from cluster.errors import ConfigError, Problem
from cluster.model import (
    TLS,
    Admin,
    AdminEndpoint,
    AgentListeners,
    Configuration,
    Etcd,
    Group,
    Host,
    Identity,
    Node,
    Peers,
    Service,
    Vips,
)
from director.config import check
from director.config.files import dump_toml
from director.config.init.authority import DIALS, SERVES, Authority
from director.config.init.drop_ins import DROP_IN, agent_drop_in, director_drop_in
from director.config.init.wanted import Wanted, listening
from director.config.init.writing import File
from director.config.loops import loop_errors
from director.config.node import ETCD

#: The usual ports.
ADMIN_PORT, AGENTS_PORT, PEERS_PORT = 7401, 7946, 7947
#: The first service and its group.
SERVICE, GROUP = "web", "main"
#: A top-level domain that is kept for private use: nobody else's certificate has such a name.
DIRECTORS_DOMAIN, AGENTS_DOMAIN = "directors.internal", "agents.internal"
#: 256 bits, as `director token` makes them.
SECRET_BYTES = 32
#: Of files with keys, tokens, secrets or hashes.
_PRIVATE = 0o600

CA, CA_KEY = "authority/ca.pem", "authority/ca.key.pem"
#: What certificates are called, so that `renew` finds them, and what their keys are.
CERTIFICATE_SUFFIX, KEY_SUFFIX = ".crt.pem", ".key.pem"


class Terms(NamedTuple):
    """What a layout takes besides the answers."""

    directory: str  #: where the files will be, as a whole path
    user: str  #: the first of the admin, who may do everything
    password_hash: str
    days: int  #: that certificates are valid
    now: datetime.datetime


def layout(wanted: Wanted, terms: Terms) -> dict[str, File]:
    """Every file by its path below the directory.

    :raises ConfigError: what of *wanted* no director would take.
    """
    authority = Authority.made(now=terms.now)
    secret = File(f"{secrets.token_hex(SECRET_BYTES)}\n".encode(), _PRIVATE)
    users = File(f"{terms.user}:{terms.password_hash}\n".encode(), _PRIVATE)
    tokens = {name: new_token() for name in wanted.hosts}
    services = {SERVICE: _service(wanted)}
    nodes = {name: _node(name, wanted, tokens, f"{terms.directory}/directors/{name}") for name in wanted.directors}
    alone = not wanted.etcd
    configurations = {name: Configuration(node=node, services=services if alone else {}) for name, node in nodes.items()}
    _judge([*configurations.values(), Configuration(services=services)], wanted)

    files = {CA: File(authority.pem.certificate), CA_KEY: File(authority.pem.key, _PRIVATE)}
    if not alone:
        files["services.toml"] = _toml("The cluster's services: `director bootstrap` puts them into an empty cluster, "
                                       "`directorctl apply` changes what is there.",
                                       dump_toml(Configuration(services=services)))
    for name, address in wanted.directors.items():
        here = f"directors/{name}"
        files |= {
            f"{here}/director.toml": _toml(f"Director {name}: `director run` with this file.",
                                           dump_toml(configurations[name])),
            f"{here}/{DROP_IN}": director_drop_in(f"{terms.directory}/{here}", vips=bool(wanted.vips)),
            f"{here}/ca.pem": files[CA], f"{here}/htpasswd": users, **({} if alone else {f"{here}/peers.secret": secret}),
            **_signed(f"{here}/director", authority.issue((f"{name}.{DIRECTORS_DOMAIN}", address), (SERVES, DIALS),
                                                          days=terms.days, now=terms.now)),
            **_signed(f"{here}/admin", authority.issue(_distinct(address, name, "localhost", "127.0.0.1", "::1"), (SERVES,),
                                                       days=terms.days, now=terms.now)),
        }
    for name, served_at in wanted.hosts.items():
        here = f"agents/{name}"
        made = agent_files(name, served_at.port, _agents_ports(wanted), tokens[name], authority,
                           here=f"{terms.directory}/{here}", days=terms.days, now=terms.now)
        files |= {f"{here}/{path}": file for path, file in made.items()}
    return files


def _service(wanted: Wanted) -> Service:
    hosts = {name: Host(address=str(address)) for name, address in wanted.hosts.items()}
    return Service(listen=listening(wanted), groups={GROUP: Group(hosts=hosts)})


def _node(name: str, wanted: Wanted, tokens: Mapping[str, str], here: str) -> Node:
    address = wanted.directors[name]
    own = TLS(certificate=f"{here}/director{CERTIFICATE_SUFFIX}", key=f"{here}/director{KEY_SUFFIX}",
              client_ca=f"{here}/ca.pem")
    admin = TLS(certificate=f"{here}/admin{CERTIFICATE_SUFFIX}", key=f"{here}/admin{KEY_SUFFIX}")
    identities = {host: identity(host, token) for host, token in tokens.items()}
    agents, peers = AgentListeners(), Peers()
    if identities:
        agents = AgentListeners(listen=(_at(address, AGENTS_PORT),), advertise=_agents_ports(wanted), tls=own,
                                identities=identities)
    if wanted.etcd:
        peers = Peers(listen=_at(address, PEERS_PORT), secret_file=f"{here}/peers.secret", tls=own,
                      certificate_domain=DIRECTORS_DOMAIN)
    return Node(
        name=name,
        store=ETCD if wanted.etcd else f"file:{here}/state",
        etcd=Etcd(endpoints=wanted.etcd, snapshot=f"{here}/snapshot") if wanted.etcd else Etcd(),
        agents=agents,
        peers=peers,
        vips=Vips(interface=wanted.interface, addresses=wanted.vips),
        admin=Admin(endpoints=(AdminEndpoint(listen=_at(address, ADMIN_PORT), tls=admin),),
                    htpasswd=f"{here}/htpasswd", htpasswd_role="full"),
    )


def agent_files(name: str, port: int, directors: Sequence[str], token: str, authority: Authority, *, here: str, days: int,
                now: datetime.datetime) -> dict[str, File]:
    """Of the agent beside host *name*, which serves at *port*; *here* is where they will be."""
    config = {  # as `agent.config.AgentConfig` takes it
        "name": name, "directors": list(directors), "hosts": [f"{SERVICE}/{GROUP}/{name}"], "port": port,
        "token_file": f"{here}/token",
        "tls": {"ca": f"{here}/ca.pem", "certificate": f"{here}/agent{CERTIFICATE_SUFFIX}",
                "key": f"{here}/agent{KEY_SUFFIX}"},
    }
    return {
        "agent.toml": _toml(f"The agent beside host {name}: `director-agent --config` with this file.",
                            tomli_w.dumps(config)),
        DROP_IN: agent_drop_in(here),
        "ca.pem": File(authority.pem.certificate), "token": File(f"{token}\n".encode(), _PRIVATE),
        **_signed("agent", authority.issue((f"{name}.{AGENTS_DOMAIN}",), (DIALS,), days=days, now=now)),
    }


def identity(host: str, token: str) -> Identity:
    """What directors know of the agent with *token*."""
    return Identity(hosts=(f"{SERVICE}/{GROUP}/{host}",), token_sha256=hashlib.sha256(token.encode()).hexdigest())


def new_token() -> str:
    return secrets.token_urlsafe(SECRET_BYTES)


def _judge(configurations: list[Configuration], wanted: Wanted) -> None:
    """Whatever `director check` would say of the files, but for the files themselves, which are not there yet."""
    addresses = frozenset(wanted.directors.values())
    problems: dict[str, Problem] = {}
    for configuration in configurations:
        for problem in (*check.errors(configuration, unreadable=lambda path: ""),
                        *loop_errors(configuration, addresses.__contains__)):
            problems.setdefault(str(problem), problem)
    if problems:
        raise ConfigError(list(problems.values()))


def _agents_ports(wanted: Wanted) -> tuple[str, ...]:
    return tuple(_at(address, AGENTS_PORT) for address in wanted.directors.values())


def _at(host: str, port: int) -> str:
    return str(Address(host, port))


def _signed(path: str, pem: tuple[bytes, bytes]) -> dict[str, File]:
    certificate, key = pem
    return {f"{path}{CERTIFICATE_SUFFIX}": File(certificate), f"{path}{KEY_SUFFIX}": File(key, _PRIVATE)}


def _distinct(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _toml(what: str, text: str) -> File:
    return File(f"# {what}\n# Every key: docs/reference/configuration.md\n\n{text}".encode())
