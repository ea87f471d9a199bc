"""Where the loops meet: the running node, fed by the store."""

__all__ = ["errors", "node", "swapping", "sync", "telling", "turning"]
