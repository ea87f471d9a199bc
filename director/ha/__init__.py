"""What makes a director one of several."""

__all__ = ["clustering", "fence", "forgetting", "leases", "membership", "spreading", "stores"]
