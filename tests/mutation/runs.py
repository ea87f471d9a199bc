"""Runs of unit tests in forked children, on a copy of the checkout.

A child has imported everything but what is ours when it begins, and ends without cleaning up: a run of a few tests takes a
third of a second. Properties draw the same examples in every run, so that a test which did not reach a line once never does.
"""

from __future__ import annotations

import importlib
import os
import pickle
import resource
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import _hypothesis_pytestplugin
import coverage
import pytest
from hypothesis import HealthCheck, Phase, settings

#: What the suites import of others and what is slow to import. Not Twisted's reactor: children would share its descriptor.
for name in ("hypothesis.stateful", "hypothesis.strategies", "cryptography.x509", "msgspec",
             "twisted.internet.task", "twisted.logger", "twisted.trial.unittest", "OpenSSL.SSL"):
    importlib.import_module(name)
settings.register_profile(
    "mutation", deadline=None, database=None, derandomize=True, phases=(Phase.explicit, Phase.generate),
    suppress_health_check=(HealthCheck.too_slow,),
)
#: CPU that a change may cost a test before it counts as an endless loop: this many times what the test took, and seconds.
SLOWER, SLOWER_S = 10, 5.0
#: Of the wall's clock for a whole run, beside as many times what its tests took: one that waits for ever ends here.
WAITING_S = 60.0
#: A change that makes something grow without end meets this bound, long before the machine's.
MEMORY_BYTES = 4 << 30


class Test(NamedTuple):
    name: str  #: pytest's, from the root: file::class::method
    seconds: float  #: when it was recorded

    @property
    def file(self) -> str:
        return self.name.partition("::")[0]


class Recorded(NamedTuple):
    """What the tests of one file reach, as long as nothing is changed."""

    tests: tuple[Test, ...]
    imported: frozenset[str]  #: modules, which all of these tests depend on
    reads: bool  #: a test reads source or starts a process: everything is of concern to it
    shared: dict[str, frozenset[int]]  #: module to lines that ran outside of a test
    lines: dict[str, dict[str, frozenset[int]]]  #: test to module to lines


class _Recorder:
    """Pytest plugin: which lines each test reaches, and how long it takes."""

    def __init__(self, root: Path) -> None:
        self.seconds: dict[str, float] = {}
        self.reads = False
        self._root = str(root)
        self._coverage = coverage.Coverage(
            data_file=None, config_file=False, include=[f"{root}/director/core/*", f"{root}/cluster/*"], messages=False,
        )
        sys.addaudithook(self._heard)
        self._coverage.start()

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and str(args[0]).startswith(self._root) and str(args[0]).endswith(".py"):
            # imports and reports of failures read source, too, but not so near to a test
            frame = sys._getframe().f_back
            for _ in range(4):
                if frame is not None:
                    self.reads |= frame.f_code.co_filename.startswith(f"{self._root}/tests/")
                    frame = frame.f_back
        elif event in ("subprocess.Popen", "os.posix_spawn", "os.fork"):
            self.reads = True

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        began = time.perf_counter()
        yield
        self.seconds[item.nodeid] = time.perf_counter() - began
        self._coverage.switch_context("")

    def lines(self) -> dict[str, dict[str, frozenset[int]]]:
        self._coverage.stop()
        data = self._coverage.get_data()
        found: dict[str, dict[str, frozenset[int]]] = {}
        for context in data.measured_contexts():
            data.set_query_context(context)
            found[context] = {
                os.path.relpath(path, self._root): frozenset(lines)
                for path in data.measured_files() if (lines := data.lines(path))
            }
        return found


class _Chosen:
    """Pytest plugin: only these tests, in this order, each within its time."""

    def __init__(self, tests: Sequence[Test]) -> None:
        self._rank = {test.name: rank for rank, test in enumerate(tests)}
        self._seconds = {test.name: test.seconds for test in tests}
        self.failed = ""
        signal.setitimer(signal.ITIMER_PROF, SLOWER_S * SLOWER)  # importing

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self._rank), key=lambda item: self._rank[item.nodeid])

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        signal.setitimer(signal.ITIMER_PROF, SLOWER_S + SLOWER * self._seconds[item.nodeid])  # ends the process
        yield

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = report.nodeid


def record(copy: Path, file: str) -> Recorded | None:
    """None: a test failed."""

    def work() -> tuple[Any, ...] | None:
        recorder = _Recorder(copy)
        if _pytest(copy, [file], recorder) != 0:
            return None
        lines = recorder.lines()
        modules = (os.path.relpath(getattr(each, "__file__", None) or "/", copy) for each in list(sys.modules.values()))
        return tuple(recorder.seconds.items()), frozenset(modules), recorder.reads, lines.pop("", {}), lines

    found = _in_child(copy, work, None)
    return found and Recorded(tuple(Test(*each) for each in found[0]), *found[1:])


def failing(copy: Path, tests: Sequence[Test]) -> str | None:
    """The first of *tests* that fails; none: all pass. Empty when there is no name to it: an import failed, or time was up."""

    def work() -> str | None:
        sys.dont_write_bytecode = True
        chosen = _Chosen(tests)
        return None if _pytest(copy, sorted({test.file for test in tests}), chosen, "-x", "--tb=no") == 0 else chosen.failed

    return _in_child(copy, work, WAITING_S + SLOWER * sum(test.seconds for test in tests), "")


def _pytest(copy: Path, files: Sequence[str], plugin: object, *options: str) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # others' take a second
    return pytest.main([
        "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:unraisableexception",
        "--hypothesis-profile=mutation",
        f"--basetemp={copy.with_suffix('.tmp')}-{os.getpid()}", *options, *files,
    ], plugins=[_hypothesis_pytestplugin, plugin])


def _ended(process: int, within_s: float | None) -> bool:
    """Whether it does. Seconds are counted, not read off a clock: while all of this is stopped, no time passes."""
    waited_s = 0
    while not select.select([process], [], [], 1)[0]:
        waited_s += 1
        if within_s is not None and waited_s > within_s:
            return False
    return True


def _in_child(copy: Path, work: Callable[[], Any], within_s: float | None, otherwise: Any = None) -> Any:
    """What *work* returns in a child whose directory and first place of imports is *copy*; *otherwise* if it dies or is late."""
    with tempfile.TemporaryFile() as answer:
        pid = os.fork()
        if not pid:
            try:
                with open(os.devnull, "r+b") as nothing:
                    for fd in range(3):
                        os.dup2(nothing.fileno(), fd)
                os.chdir(copy)
                here = Path(__file__).parents[2]
                sys.path[:] = [str(copy), *(each for each in sys.path if Path(each).absolute() != here)]
                for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
                    del sys.modules[name]
                pickle.dump(work(), answer)
                answer.flush()
            finally:
                os._exit(0)
        fd = os.pidfd_open(pid)
        try:
            if not _ended(fd, within_s):
                os.kill(pid, signal.SIGKILL)
        finally:
            os.close(fd)
        os.waitpid(pid, 0)
        answer.seek(0)
        try:
            return pickle.load(answer)
        except EOFError:
            return otherwise
