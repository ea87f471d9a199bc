"""Pure decisions: no reactor, no sockets, no clock of its own."""

__all__ = [
    "access", "admission", "arrivals", "bucket", "capacity", "caps", "carrying", "client_hello", "crowd", "discovered",
    "entries", "events", "forwarding", "host", "inventory", "loops", "merge", "orders", "pictures", "plan", "pool",
    "probed_weight", "promises", "proxy_protocol", "responders", "schedulers", "seen", "server_names", "snapshot",
    "splitting", "spreading", "tls_extensions", "totals", "transitions", "vip", "weights",
]
