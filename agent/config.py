"""What an agent is told: where the directors are, and for which hosts it speaks."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from agent.exposition import selector
from cluster.address import parse_address
from cluster.credentials import resolved
from cluster.errors import ConfigError, Problem
from cluster.model import Count, HostRef, Name, Positive, Record, Seconds, SecondsOrOff, Weight
from cluster.validate import convert
from cluster.wire import MAX_DIRECTORS, MAX_HOSTS

#: How long a stop waits for open connections by default; longer than most of them last.
LEAVE_S = 30.0
#: The longest name (`cluster.model.Name`), and how much of a digest tells longer ones apart.
_NAME_LENGTH = 63
_DIGEST_LENGTH = 10


class AgentTLS(Record, frozen=True):
    """PEM files. Without *ca* the machine's own list of authorities is trusted."""

    ca: str | None = None
    certificate: str | None = None  #: to prove who we are
    key: str | None = None
    server_name: str | None = None  #: the name in every director's certificate, when not the address's host


class AgentCheck(Record, frozen=True):
    """Answers to HAProxy's agent-check."""

    listen: str  #: ``[ADDRESS:]PORT``; without an address, all of IPv4
    weight: Literal["headroom", "stated"] = "headroom"  #: a weight from the utilisation, or only what the application states
    least_percent: Annotated[int, Meta(ge=1, le=100)] = 5  #: of the weight, however full; 0 would take all traffic away
    smooth_s: SecondsOrOff = 5.0  #: time constant of the utilisation's average; 0: none


class Prometheus(Record, frozen=True):
    """The service's own counters. Selectors are like ``name{label="value",other=~"pattern"}``; what matches is summed."""

    url: str  #: of the page
    requests: str  #: served, failed ones included
    errors: tuple[str, ...] = ()  #: failed ones
    latency_sum: str | None = None  #: seconds
    latency_count: str | None = None
    interval_s: Seconds = 1.0
    timeout_s: Seconds = 1.0  #: for a page


class AgentConfig(Record, frozen=True):
    """An agent's configuration; `check` tells what is wrong with one."""

    name: Name
    directors: tuple[str, ...]  #: ``host:port``, ``[v6]:port`` or ``unix:/path``; further ones are learned
    hosts: tuple[str, ...]  #: ``service/group/host``
    port: Positive | None = None  #: the service's port, whose established connections are counted
    max_in_flight: Count = 0  #: what the service can serve at once; its use counts as utilisation. 0: unknown
    utilisation: Literal["cgroup", "process", "machine"] = "cgroup"  #: whose CPU counts; else the next one's
    cgroup: str | None = None  #: the service's, as ``/proc/PID/cgroup`` tells it; None: of whoever listens on *port*
    interval_s: Seconds = 1.0  #: between reports, until a director says
    register: str | None = None  #: join the groups at this address; ``:port`` means the address that directors see
    weight: Weight = 1.0  #: for joining
    prometheus: Prometheus | None = None  #: where rate, errors and latency are, if the application does not count here
    agent_check: AgentCheck | None = None  #: `director-agent` answers HAProxy; then directors and hosts may be left out
    leave_deadline_s: SecondsOrOff | None = None  #: how long a stop waits for what is in flight; 0: not at all;
    #: None: `LEAVE_S`, or not at all when nobody can tell what is in flight
    token: str | None = None
    token_file: str | None = None
    tls: AgentTLS | None = None
    insecure: bool = False  #: allow plaintext beyond loopback


def configure(path: str | None, options: Mapping[str, object]) -> AgentConfig:
    """The configuration of the TOML file *path*, if any, in which *options* replace what the file says.

    :raises ConfigError: with everything that is wrong.
    """
    data: dict[str, object] = {}
    if path is not None:
        try:
            with open(path, "rb") as file:
                data |= tomllib.load(file)
        except (OSError, ValueError) as error:
            raise ConfigError([Problem("", str(error), file=path)]) from error
        except RecursionError:
            raise ConfigError([Problem("", "arrays or tables are nested too deeply", file=path)]) from None
    for key, value in options.items():
        before = data.get(key)
        data[key] = before | value if isinstance(before, dict) and isinstance(value, dict) else value
    for required in ("directors", "hosts"):
        data.setdefault(required, ())
    data.setdefault("name", _default_name(data["hosts"]))
    config, problems = convert(data, AgentConfig)
    if config is not None:
        config, problems = resolved(config, os.environ)
        problems += check(config)
    if config is None or problems:
        raise ConfigError([problem._replace(file=path) for problem in problems])
    return config


def as_typed(error: ConfigError, options: Mapping[str, str], typed: Mapping[str, object], path: str | None) -> ConfigError:
    """*error* in the words of a command line: what was *typed*, or is missing without a file, by its option's name.

    :param options: names of options, by dotted keys of the configuration.
    """
    def told(problem: Problem) -> Problem:
        key, _, rest = problem.place.partition("[")
        given = typed.get(key.partition(".")[0])
        here = path is None or (given is not None and (not isinstance(given, dict) or key.rpartition(".")[2] in given))
        if key not in options or not here:
            return problem
        number = rest.partition("]")[0]
        which = f" (no. {int(number) + 1})" if number.isdecimal() else ""
        return problem._replace(place=options[key] + which, file=None)

    return ConfigError([told(problem) for problem in error.problems])


def _default_name(hosts: object) -> str:
    """This machine's name without its domain, and the hosts spoken for, in the alphabet of names: two agents of one machine
    speak for different hosts. What is too long for a name is cut, and told apart by a digest."""
    refs = [str(host) for host in hosts] if isinstance(hosts, list | tuple) else []
    whole = " ".join([socket.gethostname().partition(".")[0] or "agent", *refs])
    name = re.sub(r"[^A-Za-z0-9_-]", "-", whole)
    if len(name) <= _NAME_LENGTH:
        return name
    digest = hashlib.sha256(whole.encode(errors="surrogateescape")).hexdigest()[:_DIGEST_LENGTH]
    return f"{name[:_NAME_LENGTH - _DIGEST_LENGTH - 1]}-{digest}"


def check(config: AgentConfig) -> list[Problem]:
    """Everything that is wrong with *config*, files not looked at."""
    problems = []
    for field, values in (("directors", config.directors), ("hosts", config.hosts)):
        if not values and (config.agent_check is None or config.directors):
            problems.append(Problem(field, "at least one is needed"))
    if len(config.directors) > MAX_DIRECTORS:
        problems.append(Problem("directors", f"at most {MAX_DIRECTORS}"))
    if len(config.hosts) > MAX_HOSTS:
        problems.append(Problem("hosts", f"at most {MAX_HOSTS}"))
    for index, text in enumerate(config.directors):
        wrong = refusal(text, config)
        if wrong:
            problems.append(Problem(f"directors[{index}]", wrong))
    for index, text in enumerate(config.hosts):
        try:
            HostRef.parse(text)
        except ValueError as error:
            problems.append(Problem(f"hosts[{index}]", str(error)))
    if config.register is not None:
        try:
            parse_address("host" + config.register if config.register.startswith(":") else config.register)
        except ValueError as error:
            problems.append(Problem("register", str(error)))
    if config.token is not None and config.token_file is not None:
        problems.append(Problem("token_file", "give the token or its file, not both"))
    if config.tls is not None and (config.tls.certificate is None) != (config.tls.key is None):
        problems.append(Problem("tls", "a certificate and its key come together"))
    if config.port is not None and config.port > 65535:
        problems.append(Problem("port", "a port is at most 65535"))
    if config.prometheus is not None:
        problems += _prometheus_problems(config.prometheus)
    if config.agent_check is not None:
        try:
            listening(config.agent_check.listen)
        except ValueError as error:
            problems.append(Problem("agent_check.listen", str(error)))
    if config.cgroup is not None and (not config.cgroup.startswith("/") or ".." in config.cgroup.split("/")):
        problems.append(Problem("cgroup", "a path like /system.slice/web.service, without the mount point"))
    if config.cgroup is not None and config.utilisation != "cgroup":
        problems.append(Problem("cgroup", f'with utilisation = "{config.utilisation}" it is not looked at'))
    return problems


def _prometheus_problems(config: Prometheus) -> list[Problem]:
    problems = []
    try:
        url = urlsplit(config.url)
        plain = re.fullmatch("[!-~]+", config.url) is not None
        sound = plain and url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        sound = False
    if not sound:
        problems.append(Problem("prometheus.url", "a URL like http://127.0.0.1:9100/metrics"))
    selectors = {"requests": config.requests, "latency_sum": config.latency_sum, "latency_count": config.latency_count,
                 **{f"errors[{index}]": text for index, text in enumerate(config.errors)}}
    for place, text in selectors.items():
        if text is not None:
            try:
                selector(text)
            except ValueError as error:
                problems.append(Problem(f"prometheus.{place}", str(error)))
    if (config.latency_sum is None) != (config.latency_count is None):
        problems.append(Problem("prometheus", "latency_sum and latency_count come together"))
    return problems


def listening(text: str) -> tuple[str, int]:
    """Host and port of ``[ADDRESS:]PORT``; without an address, all of IPv4. Raises ValueError."""
    address = parse_address(f"0.0.0.0:{text}" if text.isdecimal() else text, any_port=True)
    if not address.is_ip:
        raise ValueError("a port, or an IP address and a port")
    return address.host, address.port


def refusal(director: str, config: AgentConfig) -> str:
    """Why this agent will not connect to *director*; '' if it will. A token must not cross a network in the clear."""
    try:
        address = parse_address(director)
    except ValueError as error:
        return str(error)
    if config.tls is None and not config.insecure and not address.is_loopback:
        return (f"{director} is beyond this machine: it takes TLS (--tls, or [tls]), or permission for plaintext "
                "(--insecure, or insecure = true)")
    return ""
