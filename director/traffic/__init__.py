"""One client's way: accepted, admitted, connected, handed to a relay."""

__all__ = ["frontend", "listener", "origins", "target"]
