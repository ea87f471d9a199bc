"""What a director writes for people: the log and the access log."""

__all__ = ["output"]
