"""The web interface, put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.web.resource import Resource

from cluster.model import Admin
from director.admin.control import Control
from director.admin.gate import Gate
from director.admin.ui.feed import Events, Feed
from director.admin.ui.resource import Ui
from director.admin.ui.static import Static, load
from director.admin.ui.templates import Templates
from director.admin.ui.visitors import Visitors
from director.version import VERSION


def make_ui(gate: Gate, control: Control, admin: Admin, *, reactor: Any) -> tuple[Mapping[bytes, Resource], Feed]:
    """Resources by the first part of their path (empty: of all other paths), and the service that feeds them."""
    visitors = Visitors(gate, clock=reactor)
    feed = Feed(control, reactor=reactor)
    static = Static(load())
    templates = Templates(static=static.url, common={"version": VERSION, "project_url": admin.project_url})
    ui = Ui(visitors, control, feed, templates, admin)
    return {b"": ui, b"static": static, b"events": Events(visitors, feed)}, feed
