"""A balancer inside another Twisted application: ``python deploy/examples/embed.py``.

`balancer` is an ordinary Twisted service: give it a parent, or start and stop it yourself.
"""

from twisted.application.service import IService, IServiceCollection

from director.builder import Director


def attach_balancer(parent: IServiceCollection) -> IService:
    """Balance 127.0.0.1:8080 over two hosts, as part of *parent*."""
    director = Director()
    hosts = director.service("web", "127.0.0.1:8080").group("all", scheduler="leastconns")
    hosts.host("app1", "127.0.0.1:9001").host("app2", "127.0.0.1:9002")
    return director.attach(parent)


if __name__ == "__main__":
    from twisted.application.service import MultiService
    from twisted.internet import reactor

    application = MultiService()
    attach_balancer(application)
    reactor.callWhenRunning(application.startService)
    reactor.addSystemEventTrigger("before", "shutdown", application.stopService)
    reactor.run()
