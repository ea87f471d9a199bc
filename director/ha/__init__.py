"""What makes a director one of several."""

__all__ = ["clustering", "forgetting", "leases", "membership", "stores"]
