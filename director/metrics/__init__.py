"""What is counted, and how it is exposed."""

__all__ = ["certificates", "counters", "families", "gauges"]
