"""Who may touch what the inventory owns. Read from the source, so a way around that hides the names would not be seen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import director
from director.core.entries import HostEntry
from director.core.health import HostHealth

SOURCE = Path(director.__file__).parent
TREES = {str(path.relative_to(SOURCE)): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}

#: The inventory and its parts.
OWNERS = {"core/ejecting.py", "core/inventory.py", "core/placing.py", "core/judging.py", "core/weighing.py"}
#: Of other records, whose attributes have the same names.
NAMESAKES = {"known.reported_at", "self._metrics.host(host.ref.group, host.ref.host).connect_failures",
             "metrics.connect_failures"}
#: Methods of a health machine that change nothing.
LOOKS = {"deadline", "evidence", "heartbeat_age"}
#: Methods of the inventory that change nothing, or nothing that verdicts, pools and queues depend on.
NO_MUTATIONS = {"drain", "entry_of", "in_grace", "caps", "capped", "registered", "registrations", "next_deadline",
                "next_recompute", "drains", "resolved", "tallied", "probe_started", "responder"}


def is_health(node: ast.expr) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "health") or (isinstance(node, ast.Name) and node.id == "health")


def written(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Attributes of others that are assigned or deleted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del) \
                and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
            yield node


class BorderTests(SynchronousTestCase):
    def test_only_the_inventory_makes_health_machines(self) -> None:
        """Nobody else imports the machine; what it tells (`Evidence`, `Transition`) is everybody's."""
        importers = {
            name for name, tree in TREES.items() for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "director.core.health"
            and any(alias.name == "HostHealth" for alias in node.names)
        }
        self.assertEqual(importers, {"core/placing.py", "core/entries.py"})

    def test_only_the_inventory_gives_health_machines_inputs(self) -> None:
        """An input past the inventory is one that nobody judges."""
        inputs = {name for name, value in vars(HostHealth).items() if callable(value) and not name.startswith("_")} - LOOKS
        found = [
            f"{name}:{node.lineno} {node.func.attr}" for name, tree in TREES.items() if name not in OWNERS
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in inputs
            and is_health(node.func.value)
        ]
        self.assertEqual(found, [])
        self.assertIn("retry", inputs)

    def test_only_the_inventory_writes_entries(self) -> None:
        """Others read, and call the inventory."""
        found = [
            f"{name}:{node.lineno} {ast.unparse(node)}" for name, tree in TREES.items() if name not in OWNERS
            for node in written(tree) if node.attr in HostEntry.__slots__ or is_health(node.value)
            if ast.unparse(node) not in NAMESAKES
        ]
        self.assertEqual(found, [])

    def test_every_mutation_of_the_inventory_concludes(self) -> None:
        """Whatever changes something ends where hosts are judged, pools brought up to date and queues served."""
        tree = next(node for node in ast.walk(TREES["core/inventory.py"])
                    if isinstance(node, ast.ClassDef) and node.name == "Inventory")
        public = {node.name: ast.unparse(node) for node in tree.body
                  if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}
        self.assertEqual({name for name, source in public.items() if "self._conclude(" not in source}, NO_MUTATIONS)
