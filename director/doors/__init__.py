"""Ways in beside the admin: the control socket and the manhole."""

__all__ = ["control_socket", "manhole"]
