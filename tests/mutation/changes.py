"""Which changes could be made to a module, and what each of them is."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code


class Mutant(NamedTuple):
    module: str  #: path from the root
    operator: str
    occurrence: int
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.operator}#{self.occurrence}"


class Statement(NamedTuple):
    """What is run when a line is: its statement, without the statements within."""

    lines: frozenset[int]
    at_import: bool  #: in no function's body: whoever imports the module has run it


def mutants(root: Path, module: str) -> list[Mutant]:
    """All changes of one module that could matter: annotations are text to a module that postpones them."""
    source = (root / module).read_text()
    idle = _lines_and_columns_of_annotations(ast.parse(source))
    tree = get_ast(source)
    found = []
    for name in sorted(plugins.operator_names()):
        operator_class = plugins.get_operator(name)
        if operator_class.arguments():
            continue
        operator = operator_class()
        positions = (place for node in ast_nodes(tree) for place in operator.mutation_positions(node))
        for occurrence, ((line, column), _) in enumerate(positions):
            if not any(first <= (line, column) < last for first, last in idle):
                found.append(Mutant(module, name, occurrence, line))
    return found


def _lines_and_columns_of_annotations(tree: ast.AST) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    found: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg):
            found.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node.returns)
    return [((each.lineno, each.col_offset), (each.end_lineno or 0, each.end_col_offset or 0)) for each in found if each]


def changed(source: str, mutant: Mutant) -> str | None:
    """*source* with the change; None: the operator changes nothing there."""
    became: str | None = mutate_code(source, plugins.get_operator(mutant.operator)(), mutant.occurrence)
    return None if became == source else became


def difference(before: str, after: str) -> tuple[str, str]:
    """The changed line before and after, stripped."""
    lines = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[:2] in ("- ", "+ ")]
    return " ".join(x[2:].strip() for x in lines if x[0] == "-"), " ".join(x[2:].strip() for x in lines if x[0] == "+")


def statement(source: str, line: int) -> Statement:
    """The innermost statement that *line* is part of; a line of none, as of a decorator, belongs to what follows."""
    tree = ast.parse(source)
    around = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and line in _lines(node)]
    if not around:
        return Statement(frozenset({line}), True)
    owner = min(around, key=lambda node: len(_lines(node)))
    within = {each for child in _children(owner) for each in _lines(child)}
    bodies = (node for node in around if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return Statement(
        frozenset({line} | (set(_lines(owner)) - within)),
        all(line < _lines(node.body[0]).start or line == node.lineno for node in bodies),
    )


def _lines(node: ast.stmt) -> range:
    decorators = [each.lineno for each in getattr(node, "decorator_list", [])]
    return range(min([node.lineno, *decorators]), (node.end_lineno or node.lineno) + 1)


def _children(owner: ast.AST) -> Iterator[ast.stmt]:
    for node in ast.iter_child_nodes(owner):
        if isinstance(node, ast.stmt):
            yield node
        else:
            yield from _children(node)  # handlers of exceptions and cases of a match hold statements, too
