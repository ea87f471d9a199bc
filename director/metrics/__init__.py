"""What is counted, and how it is exposed."""

__all__ = ["carried", "certificates", "counters", "families", "gauges", "hellos", "vips"]
