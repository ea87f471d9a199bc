"""One process of a director gives way to the next, without a client noticing; see docs/operations/upgrade.md."""

__all__ = ["estate", "giving", "taking"]
