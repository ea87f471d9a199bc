"""One client's way: accepted, admitted, connected, handed to a relay."""

__all__ = ["departures", "frontend", "listener", "origins", "target"]
