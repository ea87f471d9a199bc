"""Whose turn it is, and when: deadlines on one timer, and giving way to the relay's threads."""

__all__ = ["alarm", "courtesy", "seldom"]
