"""``twist director``: the director node as a Twisted plugin."""

from twisted.application.service import ServiceMaker

director = ServiceMaker("director", "director.tap", "A TCP balancer of a director cluster", "director")
