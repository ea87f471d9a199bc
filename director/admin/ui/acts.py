"""What forms can do: one operation of the control interface each, and the page that shows the outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, quote

from twisted.web.server import Request

from director.admin.errors import Invalid

#: Far more fields than any form has.
MAX_FIELDS = 50

Given = Mapping[str, str]


class Act(NamedTuple):
    """:ivar done: what the operator is told afterwards.
    :ivar page: where, from what the form gave."""

    done: str
    page: Callable[[Given], str]


def host_page(given: Given) -> str:
    return f"{group_page(given)}/hosts/{quote(given.get('host', ''), safe='')}"


def group_page(given: Given) -> str:
    return f"{service_page(given)}/groups/{quote(given.get('group', ''), safe='')}"


def service_page(given: Given) -> str:
    return f"/services/{quote(given.get('service', ''), safe='')}"


#: By operation.
ACTS: Mapping[str, Act] = {
    "order": Act("The order is in force.", host_page),
    "weight": Act("The weight is set.", host_page),
    "approve": Act("The host is let in.", host_page),
    "retry": Act("The host has been probed.", host_page),
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


def arguments_of(form: Mapping[str, str]) -> dict[str, object]:
    """What the form says to its operation. A field left empty is not given: every operation then has its default."""
    return {name: value for name, value in form.items() if name != "csrf" and value != ""}
