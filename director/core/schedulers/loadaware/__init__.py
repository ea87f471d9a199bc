"""`loadaware`: the least loaded host, by connections, recent slowness and the agents' reports.

The score is in `scheduler`; its factors are pure: `slowness` (X), `inflight` (n), `guards` (stall and cap). W, the
capacity, comes in the hosts' weights.
"""

from director.core.schedulers.loadaware.scheduler import LoadAware

__all__ = ["LoadAware"]
