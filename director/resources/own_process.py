"""This process, under the names that every exporter has for it.

prometheus-client's own collector would list all descriptors at each scrape: 34 ms for twenty thousand, in which no client
is accepted. `in_use` has the kernel count them.
"""

from __future__ import annotations

from collections.abc import Iterator

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from director.resources.places import in_use, soft_limit


class OwnProcess(Collector):
    """A prometheus-client collector."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        with self._process.oneshot():
            times, memory, started = self._process.cpu_times(), self._process.memory_info(), self._process.create_time()
        yield CounterMetricFamily("process_cpu_seconds", "Time of processors, of the program and for it in the kernel.",
                                  value=times.user + times.system)
        yield GaugeMetricFamily("process_resident_memory_bytes", "Memory in use that is in RAM.", value=memory.rss)
        yield GaugeMetricFamily("process_virtual_memory_bytes", "Address space in use.", value=memory.vms)
        yield GaugeMetricFamily("process_start_time_seconds", "POSIX time of the process's start.", value=started)
        yield GaugeMetricFamily("process_open_fds", "Open descriptors.", value=in_use())
        yield GaugeMetricFamily("process_max_fds", "Descriptors that it may have open.", value=soft_limit())
