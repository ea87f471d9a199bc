"""What an order changes, and what can be asked."""

__all__ = ["audit", "node", "users"]
