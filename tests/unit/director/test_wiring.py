"""Parts are built, then connected: nobody sets anything on a part from afar."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[3]
SOURCES = sorted(path for package in ("agent", "cluster", "director") for path in (ROOT / package).rglob("*.py"))

#: Attributes by which libraries want to be told.
OF_LIBRARIES = {
    "clock": "a LoopingCall's: it has no parameter for it",
}
#: Modules whose records are one thing in several pieces.
ONE_THING = {
    "director/relay/link.py": "a link and its two ends",
}


def set_from_afar(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Attributes of an object's parts that its methods set, and those of what its constructor is given. Counting in another's
    counter is none of that."""
    for owner in ast.walk(tree):
        if not isinstance(owner, ast.ClassDef):
            continue
        for method in owner.body:
            if not isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            arguments = method.args
            given = {each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)} - {"self"}
            for node in ast.walk(method):
                targets = node.targets if isinstance(node, ast.Assign) else \
                    [node.target] if isinstance(node, ast.AnnAssign) else []
                for target in (each for whole in targets for each in ast.walk(whole)):
                    if not (isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store)):
                        continue
                    first: ast.expr = target.value
                    while isinstance(first, ast.Attribute):
                        first = first.value
                    if not isinstance(first, ast.Name):
                        continue
                    if (first.id == "self" and target.value is not first) or (
                        method.name == "__init__" and first.id in given
                    ):
                        yield target


class WiringTests(SynchronousTestCase):
    def test_nothing_is_set_from_afar(self) -> None:
        """What a part needs it is given when it is made; what it is told later, it is told by a method."""
        found = [
            f"{name}:{each.lineno} {ast.unparse(each)}"
            for name, path in ((str(path.relative_to(ROOT)), path) for path in SOURCES) if name not in ONE_THING
            for each in set_from_afar(ast.parse(path.read_text())) if each.attr not in OF_LIBRARIES
        ]
        self.assertEqual(found, [])

    def test_is_seen(self) -> None:
        """Each way of it."""
        text = "class A:\n def __init__(self, b, *, c):\n  {}\n def m(self, d):\n  {}"
        for first, later, seen in (
            ("b.x = 1", "pass", ["b.x"]),
            ("c.y.x: int = 1", "pass", ["c.y.x"]),
            ("self.b = b", "self.b.x = 1", ["self.b.x"]),
            ("self.b = b", "self.n, self.b.c.x = d", ["self.b.c.x"]),
            ("self.b = b", "d.x = self.b.x; self.b.n += 1; self.n = 1", []),
        ):
            tree = ast.parse(text.format(first, later))
            self.assertEqual([ast.unparse(each) for each in set_from_afar(tree)], seen)
