"""What an order changes, and what can be asked."""

__all__ = ["audit", "clients", "headline", "node", "previous", "users"]
