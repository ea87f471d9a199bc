"""What forms can do: one operation of the control interface each, and the page that shows the outcome."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, quote

from twisted.web.server import Request

from director.engine.errors import Invalid

#: Far more fields than any form has.
MAX_FIELDS = 50

Given = Mapping[str, str]


def arguments_of(form: Given) -> dict[str, object]:
    """What the form says to its operation. A field left empty is not given: every operation then has its default."""
    return {name: value for name, value in form.items() if name != "csrf" and value != ""}


def host_page(given: Given) -> str:
    return f"{group_page(given)}/hosts/{quote(given.get('host', ''), safe='')}"


def group_page(given: Given) -> str:
    return f"{service_page(given)}/groups/{quote(given.get('group', ''), safe='')}"


def service_page(given: Given) -> str:
    return f"/services/{quote(given.get('service', ''), safe='')}"


def _named(page: str) -> Callable[[Given], str]:
    return lambda given: page


def _scheduler(form: Given) -> dict[str, object]:
    """With its parameters, one ``name = value`` a line, as a configuration file has them.

    :raises Invalid: they are not."""
    arguments = arguments_of(form)
    try:
        arguments["parameters"] = tomllib.loads(form.get("parameters", ""))
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"one 'name = value' a line is expected: {error}", "parameters") from None
    except (ValueError, RecursionError):  # numbers of thousands of digits; arrays in arrays in arrays
        raise Invalid("one 'name = value' a line is expected, of moderate length", "parameters") from None
    return arguments


def _service(form: Given) -> dict[str, object]:
    return {"service": form.get("service", ""), "spec": {"listen": form.get("listen", "").replace(",", " ").split()}}


def _split(form: Given) -> dict[str, object]:
    """With its shares, ``group=share`` each.

    :raises Invalid: they are not."""
    shares: dict[str, float] = {}
    for text in form.get("shares", "").replace(",", " ").split():
        name, _, share = text.partition("=")
        try:
            number = float(share)
        except ValueError:
            raise Invalid("group=share is expected, each with a number: blue=95 green=5", "shares") from None
        if name in shares:
            raise Invalid(f"{name} is given twice", "shares")
        shares[name] = number
    return {"service": form.get("service", ""), "shares": shares}


class Act(NamedTuple):
    """:ivar done: what the operator is told afterwards.
    :ivar page: where that is, from what the form gave.
    :ivar form: where the form is, and a refusal told; None: there too.
    :ivar arguments: of the operation, from what the form gave."""

    done: str
    page: Callable[[Given], str]
    form: Callable[[Given], str] | None = None
    arguments: Callable[[Given], dict[str, object]] = arguments_of


#: By operation.
ACTS: Mapping[str, Act] = {
    "order": Act("The order is in force.", host_page),
    "weight": Act("The weight is set.", host_page),
    "approve": Act("The host is let in.", host_page, group_page),
    "retry": Act("The host has been probed.", host_page),
    "put_host": Act("The host is added.", host_page, group_page),
    "del_host": Act("The host is removed.", group_page, host_page),
    "del_all_hosts": Act("The group’s hosts are removed.", group_page),
    "enable_group": Act("The group is enabled.", group_page),
    "split_service": Act("New clients are split by these shares.", service_page, arguments=_split),
    "change_scheduler": Act("The scheduler is changed.", group_page, arguments=_scheduler),
    "new_group": Act("The group is made.", group_page, service_page),
    "del_group": Act("The group is deleted.", service_page, group_page),
    "new_service": Act("The service listens.", service_page, _named("/configuration"), _service),
    "put_user": Act("The user is kept.", _named("/users")),
    "del_user": Act("The user is deleted.", _named("/users")),
    "move_vip": Act("The virtual address is ordered there.", _named("/cluster")),
    "pin_vip": Act("The virtual address is pinned.", _named("/cluster")),
    "unpin_vip": Act("The virtual address is pinned no more.", _named("/cluster")),
    "rebalance_vips": Act("The virtual addresses are spread evenly.", _named("/cluster")),
    "kill_connection": Act("The connection is cut.", _named("/connections")),
    "reopen_logs": Act("The log is closed and open again.", _named("/cluster")),
    "reload": Act("The node’s file is read again; the log says what waits for a restart.", _named("/cluster")),
    "upgrade": Act("A new process serves; the one before it ends with its last client.", _named("/cluster")),
    "shutdown": Act("The director stops.", _named("/cluster")),
    "del_service": Act("The service is deleted.", _named("/configuration"), service_page),
}


def read_form(request: Request) -> dict[str, str]:
    """The fields of a POST.

    :raises Invalid: it is no form, or a field is there twice."""
    if (request.getHeader("content-type") or "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise Invalid("a form is expected")
    assert request.content is not None
    body = request.content.read()
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:
        raise Invalid("the form can't be read") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise Invalid("a field is given more than once")
    return form

