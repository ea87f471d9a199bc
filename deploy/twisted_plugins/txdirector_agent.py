"""``twist director-agent``: the backend host's agent as a Twisted plugin."""

from twisted.application.service import ServiceMaker

agent = ServiceMaker("director-agent", "agent.tap", "Reports a backend host's health and load", "director-agent")
