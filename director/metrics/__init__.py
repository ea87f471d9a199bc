"""What is counted, and how it is exposed."""

__all__ = ["counters", "gauges"]
