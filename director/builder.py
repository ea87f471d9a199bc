# ruff: noqa: B008 - records as defaults are frozen
"""A configuration written in Python: for ``.tac`` files and for directors inside other Twisted applications.

    director = Director("lb1", store="file:/var/lib/txdirector/state")
    web = director.service("web", "0.0.0.0:80", limits=Limits(max_connections=10_000))
    blue = web.group("blue", scheduler="p2c", choices=3)
    blue.host("app1", "10.0.0.1:80", weight=2)
    application = director.application()

It is the same model as a TOML file's, with the same checks. They run when the configuration is asked for: then every
problem is told at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
from twisted.application.service import Application, IServiceCollection

from cluster.errors import ConfigError, Problem
from cluster.model import (
    TLS,
    Access,
    AdminEndpoint,
    AgentListeners,
    Configuration,
    Group,
    Health,
    Host,
    Identity,
    Limits,
    Logging,
    Node,
    Proxy,
    Registration,
    Service,
    Sticky,
    Timeouts,
    UnixFile,
    User,
)
from cluster.validate import join
from director.config.files import checked
from director.logs.output import access_log

if TYPE_CHECKING:
    from director.admin.auth import Foreign
    from director.service import DirectorService

T = TypeVar("T")


class _Named(dict[str, T]):
    """Parts by name; a name given twice is a problem for later."""

    def __init__(self, place: str, problems: list[Problem]) -> None:
        super().__init__()
        self._place = place
        self._problems = problems

    def put(self, name: str, value: T) -> T:
        if name in self:
            self._problems.append(Problem(join(self._place, name), "defined twice"))
        self[name] = value
        return value


class GroupBuilder:
    """One group; see `Director` for how to come by it."""

    def __init__(self, place: str, problems: list[Problem], group: Group) -> None:
        self._group = group
        self._hosts: _Named[Host] = _Named(join(place, "hosts"), problems)

    def host(
        self, name: str, address: str, *, weight: float = 1.0, max_connections: int = 0, backup: bool = False
    ) -> GroupBuilder:
        """Add a backend; returns the group, for the next one."""
        self._hosts.put(name, Host(address=address, weight=weight, max_connections=max_connections, backup=backup))
        return self

    def record(self) -> Group:
        """What was built so far, unchecked."""
        return msgspec.structs.replace(self._group, hosts=dict(self._hosts))


class ServiceBuilder:
    """One service; the first group answers unless *enable* names another."""

    def __init__(self, place: str, problems: list[Problem], service: Service) -> None:
        self._service = service
        self._problems = problems
        self._place = join(place, "groups")
        self._groups: _Named[GroupBuilder] = _Named(self._place, problems)

    def group(
        self,
        name: str,
        *,
        scheduler: str = Group().scheduler,
        health: Health = Health(),
        registration: Registration = Registration(),
        **parameters: float | int | str | bool,
    ) -> GroupBuilder:
        """Add a group.

        :param parameters: of the scheduler.
        """
        group = Group(scheduler=scheduler, parameters=parameters, health=health, registration=registration)
        return self._groups.put(name, GroupBuilder(join(self._place, name), self._problems, group))

    def record(self) -> Service:
        """What was built so far, unchecked."""
        groups = {name: group.record() for name, group in self._groups.items()}
        return msgspec.structs.replace(self._service, groups=groups)


class Director:
    """A director node and its services."""

    def __init__(
        self,
        name: str = Node().name,
        *,
        store: str = Node().store,
        log: Logging = Logging(),
        panic_fraction: float = Node().panic_fraction,
        resolvers: tuple[str, ...] = (),
        relay_threads: int = Node().relay_threads,
    ) -> None:
        self._node = Node(
            name=name, store=store, log=log, panic_fraction=panic_fraction, resolvers=resolvers,
            relay_threads=relay_threads,
        )
        self._problems: list[Problem] = []
        self._services: _Named[ServiceBuilder] = _Named("services", self._problems)
        self._identities: _Named[Identity] = _Named("node.agents.identities", self._problems)
        self._users: _Named[User] = _Named("node.admin.users", self._problems)

    def service(
        self,
        name: str,
        *listen: str,
        enable: str | None = None,
        split: Mapping[str, float] | None = None,
        relay: Literal["auto", "native", "python"] = "auto",
        limits: Limits = Limits(),
        timeouts: Timeouts = Timeouts(),
        sticky: Sticky | None = None,
        proxy: Proxy = Proxy(),
        access: Access = Access(),
        unix: UnixFile = UnixFile(),
    ) -> ServiceBuilder:
        """Add a service that listens on the addresses *listen*.

        :param split: groups, the enabled one among them, by their shares of new clients.
        """
        service = Service(
            listen=listen,
            enable=enable,
            split=dict(split or {}),
            relay=relay,
            limits=limits,
            timeouts=timeouts,
            sticky=sticky,
            proxy=proxy,
            access=access,
            unix=unix,
        )
        return self._services.put(name, ServiceBuilder(join("services", name), self._problems, service))

    def agents(
        self,
        *listen: str,
        tls: TLS | None = None,
        insecure: bool = False,
        interval_s: float = AgentListeners().interval_s,
        advertise: tuple[str, ...] = (),
        handshakes_per_s: float = AgentListeners().handshakes_per_s,
    ) -> Director:
        """Where agents connect."""
        agents = AgentListeners(
            listen=listen,
            tls=tls,
            insecure=insecure,
            interval_s=interval_s,
            advertise=advertise,
            handshakes_per_s=handshakes_per_s,
        )
        self._node = msgspec.structs.replace(self._node, agents=agents)
        return self

    def identity(
        self, name: str, *hosts: str, token_sha256: str | None = None, certificate_name: str | None = None
    ) -> Director:
        """Let the agent *name* speak for the hosts that match a ``service/group/host`` pattern."""
        self._identities.put(name, Identity(hosts=hosts, token_sha256=token_sha256, certificate_name=certificate_name))
        return self

    def admin(
        self, *endpoints: AdminEndpoint, refresh_s: float = 5.0, project_url: str = "", insecure: bool = False,
        htpasswd: str | None = None, htpasswd_role: Literal["readonly", "full"] = "readonly",
    ) -> Director:
        """Where operators connect, and a file of them."""
        admin = msgspec.structs.replace(
            self._node.admin, endpoints=endpoints, refresh_s=refresh_s, project_url=project_url, insecure=insecure,
            htpasswd=htpasswd, htpasswd_role=htpasswd_role,
        )
        self._node = msgspec.structs.replace(self._node, admin=admin)
        return self

    def user(self, name: str, password: str, *, role: Literal["readonly", "full"] = "readonly") -> Director:
        """Add an operator; *password* is an Argon2 or bcrypt hash."""
        self._users.put(name, User(password=password, role=role))
        return self

    # --- the result

    def configuration(self) -> Configuration:
        """What was built, checked.

        :raises ConfigError: with every problem.
        """
        node = msgspec.structs.replace(
            self._node,
            agents=msgspec.structs.replace(self._node.agents, identities=dict(self._identities)),
            admin=msgspec.structs.replace(self._node.admin, users=dict(self._users)),
        )
        services = {name: service.record() for name, service in self._services.items()}
        data = msgspec.to_builtins(Configuration(node=node, services=services))
        try:
            configuration = checked(data)
        except ConfigError as error:
            raise ConfigError([*self._problems, *error.problems]) from None
        if self._problems:
            raise ConfigError(self._problems)
        return configuration

    def service_tree(self, reactor: Any = None, *, credentials: Foreign | None = None) -> DirectorService:
        """The director as a Twisted service, not yet started.

        :param reactor: the running one when absent.
        :param credentials: the application's own authority on operators.
        :raises ConfigError: with every problem.
        """
        configuration = self.configuration()
        from director.service import make_service  # the rest of the director: not needed to write a configuration

        if reactor is None:
            from twisted.internet import reactor
        return make_service(
            configuration, reactor=reactor, on_closed=access_log(configuration.node.log), credentials=credentials
        )

    def attach(self, parent: Any, reactor: Any = None) -> DirectorService:
        """`service_tree` as a child of *parent*, an ``IServiceCollection`` or what adapts to one (an Application)."""
        tree = self.service_tree(reactor)
        tree.setServiceParent(parent)
        return tree

    def application(self, reactor: Any = None) -> Any:
        """A Twisted application, what twistd looks for in a ``.tac`` file."""
        application = Application("director")
        self.attach(IServiceCollection(application), reactor)
        return application
