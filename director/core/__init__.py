"""Pure decisions: no reactor, no sockets, no clock of its own."""
