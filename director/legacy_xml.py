"""Reading the ``config.xml`` of both ancestors: PythonDirector (``<pdconfig>``) and txLoadBalancer (``<config>``).

Both dialects, and mixtures, are one grammar here; where they differ:

====================  ==============================  ====================================
what                  PythonDirector                  txLoadBalancer
====================  ==============================  ====================================
top level             ``pdconfig``                    ``pdconfig`` or ``config``
the enabled group     ``<enable group="g"/>``         ``<group enable="true">``
a host                ``host``, once ``client``       ``host``, perhaps with ``weight``
the admin's address   ``<admin listen="h:p">``        ``<admin><web listen="h:p"/></admin>``
====================  ==============================  ====================================

What has no counterpart is told in a warning, with its line; nothing is lost silently. Pure: text in, values out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from xml.parsers import expat

from cluster.errors import ConfigError, Problem
from cluster.model import Configuration
from director.config import checked

#: The ancestors' files have a few kilobytes; a document that nests deeper than they can is no configuration.
MAX_DEPTH = 16
_TRUE = frozenset({"true", "yes", "1", "on"})


class Imported(NamedTuple):
    """A configuration, and what of the file is not in it."""

    configuration: Configuration
    warnings: tuple[Problem, ...]


@dataclass
class _Node:
    tag: str
    line: int
    attributes: dict[str, str]
    children: list[_Node] = field(default_factory=list)

    def get(self, name: str) -> str:
        return self.attributes.get(name, "").strip()

    def is_true(self, name: str, default: str) -> bool:
        return (self.get(name) or default).lower() in _TRUE


def read(text: str, *, file: str | None = None) -> Imported:
    """:raises ConfigError: with everything that is wrong."""
    return _Reader(file).read(_tree(text, file))


def _tree(text: str, file: str | None) -> _Node:
    """The elements of *text*. Entities and external parts are refused: no configuration of the ancestors has any."""
    root = _Node("", 0, {})
    open_: list[_Node] = [root]
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        if len(open_) > MAX_DEPTH:
            raise ConfigError([Problem("", "elements nest too deeply", line=parser.CurrentLineNumber, file=file)])
        node = _Node(tag, parser.CurrentLineNumber, attributes)
        open_[-1].children.append(node)
        open_.append(node)

    def entity(*_: object) -> None:
        raise ConfigError([Problem("", "entities are not taken", line=parser.CurrentLineNumber, file=file)])

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _tag: open_.pop()
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        problem = Problem("", f"not XML: {expat.ErrorString(error.code)}", line=error.lineno, file=file)
        raise ConfigError([problem]) from error
    return root.children[0]


class _Reader:
    """Collects while it walks: the data of a configuration, errors and warnings."""

    def __init__(self, file: str | None) -> None:
        self._file = file
        self._errors: list[Problem] = []
        self._warnings: list[Problem] = []

    def read(self, top: _Node) -> Imported:
        if top.tag not in ("pdconfig", "config"):
            self._error(top, "pdconfig", f"the file begins with <{top.tag}>, not <pdconfig> or <config>")
        node: dict[str, Any] = {}
        services: dict[str, Any] = {}
        for child in top.children:
            match child.tag:
                case "service":
                    name = self._name(child, f"service{len(services) + 1}", services)
                    services[name] = self._service(child, f"services.{name}")
                case "admin":
                    node["admin"] = self._admin(child, node.get("admin", {"endpoints": []}))
                case "logging":
                    node["log"] = {"target": child.get("file")} if child.get("file") else {}
                case "control":
                    self._warn(child, "control", "the control socket is not carried over: see [node] control_socket")
                case "manager":
                    self._manager(child)
                case _:
                    self._error(child, child.tag, "an unknown section")
        if self._errors:
            raise ConfigError(self._errors)
        try:
            configuration = checked({"node": node, "services": services})
        except ConfigError as error:
            raise ConfigError([problem._replace(file=self._file) for problem in error.problems]) from error
        return Imported(configuration, tuple(self._warnings))

    def _service(self, service: _Node, place: str) -> dict[str, Any]:
        listen: list[str] = []
        groups: dict[str, Any] = {}
        enabled = ""
        for child in service.children:
            match child.tag:
                case "listen":
                    listen.append(_address(child.get("ip")))
                case "group":
                    name = self._name(child, f"group{len(groups) + 1}", groups)
                    groups[name] = {"hosts": dict(self._hosts(child, f"{place}.groups.{name}"))}
                    if child.get("scheduler"):
                        groups[name]["scheduler"] = child.get("scheduler")
                    if child.is_true("enable", "false"):
                        enabled = name
                case "enable":
                    enabled = _as_name(child.get("group"))
                case _:
                    self._error(child, place, f"<{child.tag}> has no place in a service")
        return {"listen": listen, "groups": groups} | ({"enable": enabled} if enabled else {})

    def _hosts(self, group: _Node, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
        seen: dict[str, Any] = {}
        for number, child in enumerate(group.children):
            if child.tag not in ("host", "client"):
                self._error(child, place, f"<{child.tag}> has no place in a group")
                continue
            name = self._name(child, f"host.{number}", seen)
            seen[name] = child
            host: dict[str, Any] = {"address": _address(child.get("ip"))}
            if child.get("weight"):
                try:
                    host["weight"] = float(child.get("weight"))
                except ValueError:
                    self._error(child, f"{place}.hosts.{name}.weight", f"{child.get('weight')!r} is not a number")
            yield name, host

    def _admin(self, admin: _Node, before: dict[str, Any]) -> dict[str, Any]:
        found = before
        if admin.get("listen"):
            self._endpoint(admin, found, admin.is_true("secure", "false"))
        for child in admin.children:
            match child.tag:
                case "web" if child.is_true("enable", "true"):
                    self._endpoint(child, found, child.is_true("secure", "false"))
                case "web":
                    self._warn(child, "admin.web", "is not enabled, so it is left out")
                case "ssh":
                    self._warn(child, "admin.ssh", "is not carried over: see the manhole in the documentation")
                case "user":
                    access = child.get("access") or "readonly"
                    self._warn(child, "admin.user", f"{child.get('name')!r} ({access}) needs a new password: crypt's hashes "
                               "are not taken; see directorctl users")
                case _:
                    self._error(child, "admin", f"<{child.tag}> has no place in admin")
        return found

    def _endpoint(self, node: _Node, admin: dict[str, Any], secure: bool) -> None:
        address = _address(node.get("listen"))
        if not address.startswith(("127.", "localhost:", "[::1]")):
            self._warn(node, "admin", f"{address} was reachable from outside; here it listens on loopback until there are "
                       "users and a certificate")
            address = f"127.0.0.1:{address.rpartition(':')[2]}"
        if secure:
            self._warn(node, "admin", f"{address} was https: give its endpoint a certificate in tls")
        admin["endpoints"].append({"listen": address})
        if node.get("refresh"):
            try:
                admin["refresh_s"] = float(node.get("refresh"))
            except ValueError:
                self._error(node, "admin.refresh_s", f"{node.get('refresh')!r} is not a number")

    def _manager(self, manager: _Node) -> None:
        if manager.get("hostCheckInterval"):
            self._warn(manager, "manager", "hostCheckInterval is not carried over: see health.down_interval_s")
        for child in manager.children:
            self._warn(child, f"manager.{child.tag}", "is not carried over: hosts are probed, and agents send heartbeats")

    # --- names, errors

    def _name(self, node: _Node, default: str, taken: dict[str, Any]) -> str:
        """A name of ours for the node's: other characters become dashes, which is said; twice the same is an error."""
        given = node.get("name")
        name = _as_name(given) or default
        if given and name != given:
            self._warn(node, node.tag, f"{given!r} is now called {name!r}")
        if name in taken:
            self._error(node, node.tag, f"{name!r} is there twice")
        return name

    def _error(self, node: _Node, place: str, message: str) -> None:
        self._errors.append(Problem(place, message, line=node.line, file=self._file))

    def _warn(self, node: _Node, place: str, message: str) -> None:
        self._warnings.append(Problem(place, message, line=node.line, file=self._file))


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:63]


def _address(text: str) -> str:
    """``*:80`` and ``:80`` were every address."""
    host, colon, port = text.rpartition(":")
    return f"0.0.0.0:{port}" if colon and host in ("", "*") else text
