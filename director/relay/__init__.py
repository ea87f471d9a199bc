"""Moving bytes between two connected sockets."""
