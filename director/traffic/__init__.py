"""One client's way: accepted, admitted, connected, handed to a relay."""

__all__ = ["connection", "departures", "frontend", "listening", "origins", "secure_frontend", "target"]
