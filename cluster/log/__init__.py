"""How a director and an agent log: storms summed up, and no write that waits."""
