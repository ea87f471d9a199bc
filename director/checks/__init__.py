"""Looking at hosts from here: probes, and the names they are found by."""

__all__ = ["agent_check", "child", "nameservers", "passwords", "probe_loop", "probes", "programs", "resolver", "scripts"]
