"""``make demo``: a director, four backends of different speeds with agents, load, a failure, a summary."""
