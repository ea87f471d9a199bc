"""Mutation testing of everything that decides: ``make mutation``, or ``python -m tests.mutation --sample 300 --seed 1 2 3``.

Changes of one operator, constant, decorator or keyword each are drawn at random from `director.core` and the pure modules of
`cluster`, made one at a time in a copy of the checkout, and those unit tests run that reach the changed statement as it was:
the module's own first, then the others, the fastest ones first. A change that no test notices *survives*.

Survivors that change nothing anybody could see are listed in ``survivors.toml`` with the reason; they are not drawn again.
Exit code 1 when less is caught than `least_of` the sample.
"""

from __future__ import annotations

import argparse
import gc
import math
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.mutation.changes import Mutant, Statement, changed, difference, mutants, statement
from tests.mutation.runs import Recorded, Test, failing, record

ROOT = Path(__file__).parents[2]
ACCEPTED = Path(__file__).with_name("survivors.toml")
#: What decides without I/O. `director.core` whole; of `cluster` the modules that touch no file, thread or network, but for
#: `cluster.takeover`: what holds that is its explorer (`tests.explore`), which takes too long for each change, and how much
#: its unit tests notice alone has not been measured.
MODULES = (
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("director/core/**/*.py"))),
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("cluster/model/*.py"))),
    *(f"cluster/{name}.py" for name in ("address", "keys", "leadership", "lines", "peer_wire", "table", "validate", "wire")),
)
SUITES = (
    "tests/unit/core/**/test_*.py", "tests/unit/cluster/**/test_*.py",
    "tests/unit/config/test_configuration_reference.py",  # holds the model's defaults
)
#: The share of `WHOLE_SAMPLE` changes that tests must notice.
LEAST_CAUGHT = 0.92
WHOLE_SAMPLE = 300


class Outcome(NamedTuple):
    mutant: Mutant
    caught: bool
    by: str  #: the test, if one has a name
    was: str  #: the changed line, stripped
    became: str


_copy: Path  #: of the checkout, this process's own
_recorded: Sequence[Recorded]


def _begin(origin: Path, scratch: Path, recorded: Sequence[Recorded]) -> None:
    """First in each process that judges."""
    global _copy, _recorded
    _copy = shutil.copytree(origin, scratch / f"copy-{os.getpid()}")
    _recorded = recorded
    gc.freeze()  # a child need not look through what it was born with


def sound() -> str | None:
    """None: without a change every test passes, in the order of a mutant's, too; else the one that does not."""
    every = [test for each in _recorded for test in each.tests]
    return failing(_copy, sorted(every, key=lambda test: test.seconds))


def judge(mutant: Mutant) -> Outcome | None:
    """Make the change in this process's copy, run the tests, undo it. None: the operator changes nothing there."""
    path = _copy / mutant.module
    source = path.read_text()
    became = changed(source, mutant)
    if became is None:
        return None
    stat, by = path.stat(), None
    path.write_text(became)
    try:
        for tests in _rounds(mutant.module, _reaching(mutant.module, statement(source, mutant.line))):
            if (by := failing(_copy, tests)) is not None:
                break
    finally:
        path.write_text(source)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # what was compiled of it is good again
    return Outcome(mutant, by is not None, by or "", *difference(source, became))


def _reaching(module: str, changes: Statement) -> Iterator[Test]:
    for each in _recorded:
        if each.reads or (changes.at_import and module in each.imported) or changes.lines & each.shared.get(module, set()):
            yield from each.tests
        else:
            yield from (test for test in each.tests if changes.lines & each.lines.get(test.name, {}).get(module, set()))


def _rounds(module: str, tests: Iterator[Test]) -> Iterator[list[Test]]:
    """The module's own tests, since they notice most and are few to import; then the others."""
    own: list[Test] = []
    others: list[Test] = []
    for test in sorted(tests, key=lambda test: test.seconds):
        (own if Path(test.file).stem.startswith(f"test_{Path(module).stem}") else others).append(test)
    return (each for each in (own, others) if each)


def processes(jobs: int, *begin: Any) -> Executor:
    """Processes of one thread each, which may fork."""
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), *begin)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=300, help="how many changes to try")
    parser.add_argument("--seed", type=int, nargs="+", default=[1], help="of a sample each")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mutation-") as directory:
        scratch = Path(directory)
        # What the tests need of the checkout, the native extension as built.
        origin = shutil.copytree(ROOT, scratch / "origin", ignore=shutil.ignore_patterns(
            ".git", ".venv", "build", "dist", ".*cache", ".hypothesis"))
        files = [str(path.relative_to(origin)) for suite in SUITES for path in sorted(origin.glob(suite))]
        with processes(asked.jobs) as recording:
            recorded = list(recording.map(partial(record, origin), files))
            everything = [each for found in recording.map(partial(mutants, ROOT), MODULES) for each in found]
        if broken := [file for file, each in zip(files, recorded, strict=True) if each is None]:
            print(f"tests fail as they are, so nothing can be learnt from changes: {', '.join(broken)}")
            return 1
        whole = [each for each in recorded if each is not None]
        print(f"{len(everything)} changes of {len(MODULES)} modules, {sum(len(each.tests) for each in whole)} tests", flush=True)
        with processes(asked.jobs, _begin, (origin, scratch, whole)) as judges:
            unchanged = judges.submit(sound)
            results = [sample(judges, everything, asked.sample, seed) for seed in asked.seed]
            if (failed := unchanged.result()) is not None:
                print(f"{failed} fails without a change, so what was caught may not have been")
                return 1
            return max(results)


def sample(judges: Executor, everything: Sequence[Mutant], size: int, seed: int) -> int:
    """The exit code of one sample."""
    accepted = {(each["module"], each["was"], each["became"]) for each in tomllib.loads(ACCEPTED.read_text())["survivor"]}
    drawn = list(everything)
    random.Random(seed).shuffle(drawn)
    outcomes: list[Outcome] = []
    # in batches, since which changes are none at all, or are accepted, shows only once they are made
    while len(outcomes) < size and drawn:
        batch = [drawn.pop() for _ in range(min(size - len(outcomes), len(drawn)))]
        for outcome in judges.map(judge, batch):
            if outcome is None or (outcome.mutant.module, outcome.was, outcome.became) in accepted:
                continue
            outcomes.append(outcome)
            if not outcome.caught:
                print(f"SURVIVED {outcome.mutant}\n  - {outcome.was}\n  + {outcome.became}", flush=True)
    caught, least = sum(each.caught for each in outcomes), least_of(len(outcomes))
    print(f"seed {seed}: caught {caught} of {len(outcomes)} ({caught / max(1, len(outcomes)):.1%}; at least {least:.0%} asked)",
          flush=True)
    return 0 if outcomes and caught >= least * len(outcomes) else 1


def least_of(sample: int) -> float:
    """`LEAST_CAUGHT`; of a small sample what chance leaves of it, three standard deviations below."""
    if sample >= WHOLE_SAMPLE:
        return LEAST_CAUGHT
    return LEAST_CAUGHT - 3 * math.sqrt(LEAST_CAUGHT * (1 - LEAST_CAUGHT) / max(1, sample))


if __name__ == "__main__":
    sys.exit(main())
