"""Mutation testing of everything that decides: ``make mutation``, or ``python -m tests.mutation --sample 300 --seed 1``.

Changes of one operator, constant, decorator or keyword each are drawn at random from `director.core` and the pure modules of
`cluster`, made one at a time in a copy of the checkout, and the unit tests run. A change that no test notices *survives*.

Survivors that change nothing anybody could see are listed in ``survivors.toml`` with the reason; they are not drawn again.
Exit code 1 when less is caught than `least_of` the sample.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

ROOT = Path(__file__).parents[2]
ACCEPTED = Path(__file__).with_name("survivors.toml")
#: What decides without I/O. `director.core` whole; of `cluster` the modules that touch no file, thread or network.
MODULES = (
    *sorted(ROOT.glob("director/core/**/*.py")),
    *sorted(ROOT.glob("cluster/model/*.py")),
    *(ROOT / "cluster" / f"{name}.py" for name in (
        "address", "keys", "leadership", "lines", "peer_wire", "table", "validate", "wire",
    )),
)
SUITES = ("tests/unit/core", "tests/unit/cluster")
#: The share of `WHOLE_SAMPLE` changes that tests must notice.
LEAST_CAUGHT = 0.92
WHOLE_SAMPLE = 300
#: A mutant that makes a loop endless ends here: the suites take less than a minute on a busy machine.
TIMEOUT_S = 240.0


class Mutant(NamedTuple):
    module: str  #: path from the root
    operator: str
    occurrence: int
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.operator}#{self.occurrence}"


class Outcome(NamedTuple):
    mutant: Mutant
    caught: bool
    was: str  #: the changed line, stripped
    became: str


def mutants(path: Path) -> Iterator[Mutant]:
    """All changes of one module that could matter: annotations are text to a module that postpones them."""
    source = path.read_text()
    idle = _lines_and_columns_of_annotations(ast.parse(source))
    tree = get_ast(source)
    for name in sorted(plugins.operator_names()):
        operator_class = plugins.get_operator(name)
        if operator_class.arguments():
            continue
        operator = operator_class()
        positions = (place for node in ast_nodes(tree) for place in operator.mutation_positions(node))
        for occurrence, ((line, column), _) in enumerate(positions):
            if not any(first <= (line, column) < last for first, last in idle):
                yield Mutant(str(path.relative_to(ROOT)), name, occurrence, line)


def _lines_and_columns_of_annotations(tree: ast.AST) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    found: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg):
            found.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node.returns)
    return [((each.lineno, each.col_offset), (each.end_lineno or 0, each.end_col_offset or 0)) for each in found if each]


def judge(copy: Path, mutant: Mutant) -> Outcome | None:
    """Make the change in *copy*, run the tests, undo it. None: the operator changes nothing there."""
    path = copy / mutant.module
    source = path.read_text()
    changed = mutate_code(source, plugins.get_operator(mutant.operator)(), mutant.occurrence)
    if changed is None or changed == source:
        return None
    was, became = _difference(source, changed)
    path.write_text(changed)
    try:
        caught = any(not _pass(copy, tests) for tests in _suites(copy, path))
    finally:
        path.write_text(source)
    return Outcome(mutant, caught, was, became)


def _suites(copy: Path, path: Path) -> Iterator[list[str]]:
    """The module's own tests first, since they notice most; then all."""
    own = [str(each) for suite in SUITES for each in sorted((copy / suite).rglob(f"test_{path.stem}*.py"))]
    if own:
        yield own
    yield list(SUITES)


def _pass(copy: Path, tests: list[str]) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(copy)}
    try:
        return subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=TIMEOUT_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _difference(before: str, after: str) -> tuple[str, str]:
    lines = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[:2] in ("- ", "+ ")]
    return " ".join(x[2:].strip() for x in lines if x[0] == "-"), " ".join(x[2:].strip() for x in lines if x[0] == "+")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=300, help="how many changes to try")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    accepted = {(each["module"], each["was"], each["became"]) for each in tomllib.loads(ACCEPTED.read_text())["survivor"]}
    everything = [mutant for path in MODULES for mutant in mutants(path)]
    random.Random(asked.seed).shuffle(everything)
    print(f"{len(everything)} changes of {len(MODULES)} modules; {asked.sample} by seed {asked.seed}", flush=True)

    copies: SimpleQueue[Path] = SimpleQueue()

    def one(mutant: Mutant) -> Outcome | None:
        copy = copies.get()
        try:
            return judge(copy, mutant)
        finally:
            copies.put(copy)

    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="mutation-") as scratch, ThreadPoolExecutor(asked.jobs) as pool:
        made = [_copy(Path(scratch) / str(number)) for number in range(asked.jobs)]
        if not _pass(made[0], list(SUITES)):
            print("the tests fail as they are: nothing can be learnt from changes")
            return 1
        for copy in made:
            copies.put(copy)
        # in batches, since which changes are none at all, or are accepted, shows only once they are made
        while len(outcomes) < asked.sample and everything:
            batch = [everything.pop() for _ in range(min(asked.sample - len(outcomes), len(everything)))]
            for outcome in pool.map(one, batch):
                if outcome is None or (outcome.mutant.module, outcome.was, outcome.became) in accepted:
                    continue
                outcomes.append(outcome)
                if not outcome.caught:
                    print(f"SURVIVED {outcome.mutant}\n  - {outcome.was}\n  + {outcome.became}", flush=True)
    caught, least = sum(each.caught for each in outcomes), least_of(len(outcomes))
    print(f"caught {caught} of {len(outcomes)} ({caught / max(1, len(outcomes)):.1%}; at least {least:.0%} asked)")
    return 0 if outcomes and caught >= least * len(outcomes) else 1


def least_of(sample: int) -> float:
    """`LEAST_CAUGHT`; of a small sample what chance leaves of it, three standard deviations below."""
    if sample >= WHOLE_SAMPLE:
        return LEAST_CAUGHT
    return LEAST_CAUGHT - 3 * math.sqrt(LEAST_CAUGHT * (1 - LEAST_CAUGHT) / max(1, sample))


def _copy(target: Path) -> Path:
    """What the tests need of the checkout, the native extension as built."""
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(".git", ".venv", "build", "dist", ".*cache", ".hypothesis"))
    return target


if __name__ == "__main__":
    sys.exit(main())
