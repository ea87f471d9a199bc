"""TLS of a service's clients and hosts: what is offered, with which certificates, and handshakes."""

__all__ = ["contexts", "dialling", "handshakes", "profile"]
