"""What hooks are told: one object for each transition, in words and numbers that programs can read."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import AdminState, HostRef, HostState, Order
from cluster.model.node import Hook
from director.checks.child import MAX_INPUT_BYTES
from director.core.transitions import Transition
from director.hooks.records import MAX_TEXT, encoded, gained, lost, moved, ordered, vips

WHERE = {"service": "web", "group": "blue", "host": "a"}


class Entry:
    """What a record is made of."""

    ref = HostRef("web", "blue", "a")

    def __init__(self, admin: AdminState = AdminState.UP, **orders: Order) -> None:
        self.admin = admin
        self.orders = orders


def entry(admin: AdminState = AdminState.UP, **orders: Order) -> Any:
    return Entry(admin, **orders)


class RecordTests(SynchronousTestCase):
    def test_moved(self) -> None:
        self.assertEqual(moved(entry(), Transition(1.0, HostState.UP, HostState.DOWN, "refused")),
                         {"event": "host_down", **WHERE, "before": "up", "after": "down", "why": "refused"})

    def test_ordered(self) -> None:
        """With the order that counts; of none when nothing is ordered any more."""
        drain = Order(state=AdminState.DRAIN, who="ann", why="kernel", at=1.0, deadline_s=5.0)
        agents = Order(state=AdminState.UP, who="agent", at=1.0)
        self.assertEqual(ordered(entry(AdminState.DRAIN, operator=drain, agent=agents), AdminState.UP), {
            "event": "host_ordered", **WHERE, "before": "up", "after": "drain", "by": "operator", "who": "ann", "why": "kernel",
            "deadline_s": 5.0})
        self.assertEqual(ordered(entry(), AdminState.DRAIN),
                         {"event": "host_ordered", **WHERE, "before": "drain", "after": "up"})

    def test_encoded(self) -> None:
        """A line of JSON with who says it, in which order, and when."""
        line = encoded(gained(7), director="d1", number=3, at=1769860800.1234)
        self.assertTrue(line.endswith(b"}\n"))
        self.assertEqual(json.loads(line), {"director": "d1", "number": 3, "time": "2026-01-31T12:00:00.123Z",
                                            "event": "leader_gained", "term": 7})

    def test_fits_a_pipe(self) -> None:
        """However long a reason is."""
        record = moved(entry(), Transition(1.0, HostState.UP, HostState.DOWN, "\0" * 10 * MAX_TEXT))
        self.assertLessEqual(len(encoded(record, director="d" * 63, number=1, at=0.0)), MAX_INPUT_BYTES)

    def test_every_event_can_be_asked_for(self) -> None:
        """And there is no other."""
        told = {str(each["event"]) for each in (
            *(moved(entry(), Transition(1.0, HostState.UP, state, "")) for state in HostState), ordered(entry(), AdminState.UP),
            gained(1), lost(), vips(("10.0.0.1",), taken=True), vips((), taken=False))}
        (kind,) = [field.type for field in msgspec.structs.fields(Hook) if field.name == "on"]
        self.assertEqual(told, set(get_args(get_args(kind)[0])))
        self.assertEqual(told - set(Hook().on), {"host_suspect"})
