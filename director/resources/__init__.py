"""What a director needs of its own machine, and what it does when that runs short."""

__all__ = ["backlog", "descriptors", "own_process", "places", "shortages", "usage"]
