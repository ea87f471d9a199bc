"""The director: accepts clients, picks a host for each, relays the bytes."""
