"""The operator's side: one control interface and the transports over it."""

__all__ = ["auth", "control", "gate", "offers", "scraping", "site", "userbook"]
