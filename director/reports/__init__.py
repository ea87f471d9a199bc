"""One report's way: the agents' port and its HTTP twin, who speaks for which host, and what follows."""

__all__ = ["agents", "attendance", "http", "releases", "responders"]
