"""The templates, with everything escaped that is not markup of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from director.admin.ui import text
from director.admin.ui.acts import group_page, host_page, service_page
from director.admin.ui.cells import LINE_HEIGHT, LINE_WIDTH, ref
from director.timing.courtesy import politely

#: Of a page, between two times of giving way; pieces are short.
PIECES = 64


class Templates:
    """:param static: the address of a static file.
    :param common: values for every page."""

    def __init__(self, *, static: Callable[[str], str], common: Mapping[str, Any]) -> None:
        self._environment = Environment(
            loader=PackageLoader("director.admin.ui"), autoescape=True, undefined=StrictUndefined, auto_reload=False,
            trim_blocks=True, lstrip_blocks=True,
        )
        for function in (text.number, text.fixed, text.percent, text.share, text.duration, text.size, text.heard, text.iso,
                         text.utc, text.value, ref):
            self._environment.filters[function.__name__] = function
        self._environment.globals |= {
            **common, "static": static, "ago": text.ago, "host_page": host_page, "group_page": group_page,
            "service_page": service_page, "line_width": LINE_WIDTH, "line_height": LINE_HEIGHT,
        }

    def render(self, name: str, values: Mapping[str, Any]) -> bytes:
        pieces = self._environment.get_template(name).generate(values)
        return "".join(politely(pieces, PIECES)).encode()
