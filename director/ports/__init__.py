"""Sockets to listen on: made with their mode and owner, and given to whoever accepts."""

__all__ = ["activation", "binding", "passing", "side_port", "sockets", "tls", "twisted_ports"]
