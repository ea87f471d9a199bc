"""What others are told of transitions: by a program, or by an HTTP POST; nobody waits for either."""

__all__ = ["hooks", "records"]
