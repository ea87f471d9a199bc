"""What makes a director one of several."""

__all__ = ["clustering", "membership"]
