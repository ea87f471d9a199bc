"""``make demo``: a director, four backends of different sizes with agents, load, a failure, a summary."""
