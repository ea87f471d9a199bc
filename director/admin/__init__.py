"""The operator's side: one control interface and the transports over it."""
