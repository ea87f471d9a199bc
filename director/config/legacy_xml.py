"""Reading ``config.xml`` of the ancestors, PythonDirector (2002) and txLoadBalancer (2008).

Both dialects are read as one grammar, elements of either wherever they may stand::

    pdconfig | config   service* admin* manager? logging? control?
    service  name       listen(ip)* group* enable(group)?
    group    name scheduler enable?    (host | client)(name ip weight?)*
    admin    listen? secure? refresh?  user(name password access)* web(listen enable secure refresh)? ssh(listen enable)?
    manager  hostCheckInterval?        hostCheck? configCheck? heartbeat?
    logging  file
    control  socket

What has no counterpart here, or cannot be carried over safely, becomes a note: nothing is lost without a word. Text,
comments and ``note`` elements meant nothing there and mean nothing here.

Entities are refused: nobody's configuration needs them, and they make a small file a large one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple
from xml.parsers import expat

from cluster.address import parse_address
from cluster.errors import ConfigError, Problem
from cluster.model import Configuration
from cluster.validate import join
from director.config.files import checked
from director.core.schedulers import SCHEDULERS

_ROOTS = ("pdconfig", "config")
_TRUE = frozenset({"yes", "1", "on", "enable", "true"})
#: Names that txLoadBalancer and PythonDirector had for schedulers, with ours.
_SCHEDULERS = {alias: name for name, kind in SCHEDULERS.items() for alias in kind.aliases}
_INVALID = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_NAME = 63


class Imported(NamedTuple):
    """A checked configuration, and what an operator must know about how it came to be."""

    configuration: Configuration
    notes: tuple[Problem, ...]


def import_xml(text: bytes, *, file: str | None = None) -> Imported:
    """Read a ``config.xml``.

    :param file: its name, for messages.
    :raises ConfigError: with every problem: not XML, not an ancestor's, or what makes no configuration of ours.
    """
    reading = _Reading(file)
    try:
        root = _tree(text)
    except expat.ExpatError as error:
        problem = Problem("", f"not XML: {expat.ErrorString(error.code)}", line=error.lineno, file=file)
        raise ConfigError([problem]) from error
    except _Refused as error:
        raise ConfigError([Problem("", str(error), line=error.line, file=file)]) from error
    if root.tag not in _ROOTS:
        found = Problem("", f"expected <pdconfig> or <config>, got <{root.tag}>", line=root.line, file=file)
        raise ConfigError([found])
    data = reading.configuration(root)
    try:
        configuration = checked(data)
    except ConfigError as error:
        raise ConfigError([reading.located(problem) for problem in error.problems]) from None
    return Imported(configuration, tuple(sorted(reading.notes, key=lambda note: note.line or 0)))


# --- XML, as far as configuration goes --------------------------------------------------------------------


class _Element(NamedTuple):
    tag: str
    attributes: dict[str, str]
    children: list[_Element]
    line: int


class _Refused(Exception):
    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def _tree(text: bytes) -> _Element:
    """The document's elements, without its text. Raises ExpatError and `_Refused`."""
    parser = expat.ParserCreate()
    top = _Element("", {}, [], 0)
    stack = [top]

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = _Element(tag, attributes, [], parser.CurrentLineNumber)
        stack[-1].children.append(element)
        stack.append(element)

    def refuse(*_: object) -> None:
        raise _Refused("entities are not taken", parser.CurrentLineNumber)

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: stack.pop()
    parser.EntityDeclHandler = refuse
    parser.SkippedEntityHandler = refuse
    parser.Parse(text, True)
    return top.children[0]


# --- the grammar ------------------------------------------------------------------------------------------


class _Reading:
    """One document: gathers plain data as a TOML file would give it, the lines it came from, and notes."""

    def __init__(self, file: str | None) -> None:
        self.notes: list[Problem] = []
        self._file = file
        self._lines: dict[str, int] = {}

    def located(self, problem: Problem) -> Problem:
        """*problem* of the data, at the line of the nearest element."""
        known = [place for place in self._lines if _within(problem.place, place)]
        line = self._lines[max(known, key=len)] if known else None
        return problem._replace(file=self._file, line=line)

    def configuration(self, root: _Element) -> dict[str, Any]:
        services: dict[str, Any] = {}
        node: dict[str, Any] = {"admin": {}}
        for child in self._children(root, ("service", "admin", "manager", "logging", "control")):
            match child.tag:
                case "service":
                    self._service(child, services)
                case "admin":
                    self._admin(child, node["admin"])
                case "manager":
                    self._manager(child)
                case "logging":
                    node["log"] = {"target": self._attributes(child, ("file",)).get("file", "")}
                    self._at("node.log.target", child)
                case "control":
                    self._control(child, node)
        return {"node": node, "services": services}

    # services

    def _service(self, element: _Element, services: dict[str, Any]) -> None:
        name = self._name(element, "services", services, self._attributes(element, ("name",)).get("name", ""))
        place = join("services", name)
        service = services[name] = {"listen": [], "groups": {}}
        enabled: dict[str, _Element] = {}
        given_names: dict[str, str] = {}
        children = sorted(self._children(element, ("listen", "group", "enable")), key=lambda child: child.tag == "enable")
        for child in children:
            match child.tag:
                case "listen":
                    self._at(join(place, "listen", len(service["listen"])), child)
                    service["listen"].append(_listen(self._attributes(child, ("ip",)).get("ip", "")))
                case "group":
                    given, group = self._group(child, place, service)
                    given_names[given] = group
                    if _true(child.attributes.get("enable", "")):
                        enabled[group] = child
                case "enable":
                    given = self._attributes(child, ("group",)).get("group", "")
                    enabled[given_names.get(given, given)] = child
        for group, child in list(enabled.items())[:-1]:
            self._note(place, f"group {group!r} was enabled too, but only one group can be", child)
        if enabled:
            service["enable"], child = list(enabled.items())[-1]
            self._at(join(place, "enable"), child)
        else:
            self._note(place, "no group was enabled; the first one will be", element)

    def _group(self, element: _Element, place: str, service: dict[str, Any]) -> tuple[str, str]:
        """The group's name as it was, and as it is now."""
        attributes = self._attributes(element, ("name", "scheduler", "enable"))
        given = attributes.get("name", "")
        name = self._name(element, join(place, "groups"), service["groups"], given)
        scheduler = attributes.get("scheduler", "")
        here = join(place, "groups", name)
        if scheduler == "sticky":
            service["sticky"] = {}
            self._note(here, "the scheduler sticky is now the service's [sticky] table, around the default one", element)
        hosts: dict[str, Any] = {}
        service["groups"][name] = {"hosts": hosts}
        if scheduler and scheduler != "sticky":
            service["groups"][name]["scheduler"] = _SCHEDULERS.get(scheduler, scheduler)
        for number, child in enumerate(self._children(element, ("host", "client"))):
            self._host(child, here, hosts, number)
        return given, name

    def _host(self, element: _Element, place: str, hosts: dict[str, Any], number: int) -> None:
        attributes = self._attributes(element, ("name", "ip", "weight"))
        name = self._name(element, join(place, "hosts"), hosts, attributes.get("name") or f"{element.tag}.{number}")
        hosts[name] = {"address": attributes.get("ip", "")}
        if "weight" in attributes:
            hosts[name]["weight"] = _number(attributes["weight"])

    # the node

    def _admin(self, element: _Element, admin: dict[str, Any]) -> None:
        attributes = self._attributes(element, ("listen", "secure", "refresh"))
        if "listen" in attributes:
            self._endpoint(element, attributes, admin)
        for child in self._children(element, ("user", "web", "ssh")):
            match child.tag:
                case "web":
                    attributes = self._attributes(child, ("listen", "enable", "secure", "refresh"))
                    if _true(attributes.get("enable", "true")):
                        self._endpoint(child, attributes, admin)
                    else:
                        self._note("node.admin", f"the web admin at {attributes.get('listen')} was turned off", child)
                case "ssh":
                    attributes = self._attributes(child, ("listen", "enable"))
                    self._note("node.manhole", f"the shell at {attributes.get('listen', 'port 2222')} was left out",
                               child, "[node.manhole] has one; it needs keys or users")
                case "user":
                    self._user(child)

    def _endpoint(self, element: _Element, attributes: dict[str, str], admin: dict[str, Any]) -> None:
        listen = _listen(attributes.get("listen", ""))
        endpoints = admin.setdefault("endpoints", [])
        place = join("node.admin.endpoints", len(endpoints))
        self._at(place, element)
        try:
            address = parse_address(listen)
        except ValueError:
            pass  # `checked` will say so
        else:
            if not address.is_loopback:
                self._note(place, f"listened on {listen}; on loopback now", element,
                           "beyond, it needs users and tls, or insecure = true")
                listen = f"127.0.0.1:{address.port}"
        endpoints.append({"listen": listen})
        if _true(attributes.get("secure", "")):
            self._note(place, "was https; plain http now", element, "give it a certificate: [node.admin.endpoints.tls]")
        if "refresh" in attributes:
            self._at("node.admin.refresh_s", element)
            admin["refresh_s"] = _number(attributes["refresh"])

    def _user(self, element: _Element) -> None:
        """A crypt(3) hash of eight characters is no password today; whose it was and what they might do is noted."""
        attributes = self._attributes(element, ("name", "password", "access"))
        name, access = attributes.get("name", ""), attributes.get("access", "readonly")
        self._note("node.admin.users", f"user {name!r} with {access} access was left out: crypt is no password hash today",
                   element, f"directorctl users add {_INVALID.sub('-', name)} --role {access}")

    def _manager(self, element: _Element) -> None:
        told = ", ".join(
            f"{each.tag} {value}" for each in (element, *element.children) for value in each.attributes.values()
        )
        self._note("services", f"the manager's intervals ({told or 'defaults'}) were left out", element,
                   "hosts are probed as [services.NAME.groups.NAME.health] says")

    def _control(self, element: _Element, node: dict[str, Any]) -> None:
        path = self._attributes(element, ("socket",)).get("socket", "")
        self._at("node.control_socket", element)
        if path.startswith("/"):
            node["control_socket"] = path
        else:
            self._note("node.control_socket", f"the control socket {path!r} was left out", element,
                       "its path has to be absolute")

    # what they share

    def _children(self, element: _Element, known: Collection[str]) -> Iterator[_Element]:
        for child in element.children:
            if child.tag in known:
                yield child
            elif child.tag != "note":
                self._note("", f"<{child.tag}> within <{element.tag}> is unknown and was left out", child)

    def _attributes(self, element: _Element, known: Collection[str]) -> dict[str, str]:
        for name in sorted(element.attributes.keys() - known):
            self._note("", f"attribute {name!r} of <{element.tag}> is unknown and was left out", element)
        return {name: value.strip() for name, value in element.attributes.items()}

    def _name(self, element: _Element, place: str, taken: Collection[str], given: str) -> str:
        """A valid name that none of *taken* is. A name given twice replaced the first there; here both stay."""
        name = base = _INVALID.sub("-", given)[:_MAX_NAME] or element.tag
        number = 1
        while name in taken:
            number += 1
            name = f"{base[:_MAX_NAME - 1 - len(str(number))]}-{number}"
        if name != given:
            why = "is there twice" if base == given else "is no name here"
            self._note(join(place, name), f"<{element.tag}> {given!r} {why}; called {name!r}", element)
        self._at(join(place, name), element)
        return name

    def _at(self, place: str, element: _Element) -> None:
        self._lines[place] = element.line

    def _note(self, place: str, message: str, element: _Element, hint: str = "") -> None:
        self.notes.append(Problem(place, message, hint, element.line, self._file))


def _within(place: str, outer: str) -> bool:
    return place.startswith(outer) and place[len(outer) :][:1] in ("", ".", "[")


def _listen(text: str) -> str:
    """``*:80`` and ``:80`` were every interface."""
    host, colon, port = text.rpartition(":")
    return f"0.0.0.0:{port}" if colon and host in ("", "*") else text


def _true(text: str) -> bool:
    return text.lower() in _TRUE


def _number(text: str) -> float | str:
    """The number that *text* is; *text* itself when it is none, for `checked` to refuse."""
    try:
        return float(text)
    except ValueError:
        return text
