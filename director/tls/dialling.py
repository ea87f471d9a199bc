"""TLS with hosts, of clients' connections and of probes: whom we trust, which name we ask for, and whether the host's
certificate has that name.

There is one OpenSSL context for all hosts that are reached alike: one with the authorities that the system trusts takes 30
ms and a megabyte. So it cannot know whose name to look for; `Dialling.refusal` does, once the chain is verified.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet import ssl
from twisted.logger import Logger

from cluster.address import Address
from cluster.errors import ConfigError, Problem
from cluster.model import HostTLS, ProbeTLS
from cluster.pem import PemFiles
from cluster.renewal import Renewed
from director.timing.seldom import Seldom, more
from director.tls.profile import economize

#: Ways to reach hosts that are remembered. What was configured before is forgotten when there are more.
MAX_CONTEXTS = 64
#: Between two lines in the log about files that are of no use.
COMPLAIN_S = 60.0


class Unfit(Exception):
    """Nobody can be reached with the files as they are, which is no host's fault; says why."""


class Contexts:
    """Of all that are configured; files that change are read again, as `cluster.renewal` says.

    :param without: what is not done while they cannot be read.
    """

    _log = Logger()

    def __init__(self, without: str) -> None:
        self._without = without
        self._of: dict[ProbeTLS, Renewed[Any]] = {}
        self._seldom = Seldom(every_s=COMPLAIN_S)

    @property
    def watched(self) -> tuple[Renewed[Any], ...]:
        return tuple(self._of.values())

    def dialling(self, spec: ProbeTLS, target: Address, offered: bytes = b"") -> Dialling:
        """For one connection to *target*, before its name is looked up.

        :param offered: see `Dialling`.
        :raises Unfit: a file cannot be read, or is not what it should be.
        """
        context = self.context(spec, "probe.tls")
        return Dialling(context, spec.server_name or target.host, verified=spec.verify, offered=offered)

    def keep(self, specs: Iterable[ProbeTLS]) -> None:
        """Forget all others."""
        kept = set(specs)
        self._of = {spec: renewed for spec, renewed in self._of.items() if spec in kept}

    def context(self, spec: ProbeTLS, place: str) -> SSL.Context:
        """*place* is where *spec* is configured. Raises as `dialling`."""
        renewed = self._of.get(spec)
        if renewed is None:
            if len(self._of) >= MAX_CONTEXTS:
                self._of.clear()
            try:
                renewed = Renewed(place, (spec.ca, spec.certificate, spec.key), lambda files: _read(files, spec))
            except ConfigError as error:
                why = "; ".join(map(str, error.problems))
                if (held := self._seldom.due(spec)) is not None:
                    self._log.warn("{without}: {why}{more}", without=self._without, why=why, more=more(held))
                raise Unfit(why) from error
            self._of[spec] = renewed
        found: SSL.Context = renewed.current()
        return found


class Dialling:
    """One connection's.

    :param name: a host name or an IP address, which the certificate must have.
    :param offered: the one protocol, in place of those that the context offers.
    """

    def __init__(self, context: SSL.Context, name: str, *, verified: bool, offered: bytes = b"") -> None:
        self._context = context
        self._name = name
        self._verified = verified
        self._offered = offered

    def connection(self, fd: int | None) -> SSL.Connection:
        """Our side, before the handshake; *fd* is the socket that it is on, None: none."""
        connection = SSL.Connection(self._context, fd)  # type: ignore[arg-type]
        connection.set_connect_state()
        if self._name and not Address(self._name, 0).is_ip:
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        if self._offered:
            connection.set_alpn_protos([self._offered])
        return connection

    def refusal(self, connection: SSL.Connection) -> str:
        """Why the certificate, whose chain has been verified, is not the host's; empty: it is."""
        if not self._verified:
            return ""
        try:
            if Address(self._name, 0).is_ip:
                verify_ip_address(connection, self._name)
            else:
                verify_hostname(connection, self._name)
        except (VerificationError, ValueError):  # the latter: what it has cannot be read
            return f"its certificate is not for {self._name}"
        return ""


def file_problems(place: str, spec: ProbeTLS) -> list[Problem]:
    """What is wrong with the files of *spec*, which is at *place* of the configuration."""
    files = PemFiles(place)
    _read(files, spec)
    return files.problems


def _read(files: PemFiles, spec: ProbeTLS) -> Any:
    own = files.identity(spec.certificate, spec.key) if spec.certificate is not None and spec.key is not None else {}
    trust: Any = None
    if spec.verify:
        trust = ssl.platformTrust() if spec.ca is None else files.authorities("ca", spec.ca)
    if files.problems:
        return None
    context = ssl.CertificateOptions(trustRoot=trust, raiseMinimumTo=ssl.TLSVersion.TLSv1_2, **own).getContext()
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    economize(context)
    if isinstance(spec, HostTLS) and spec.alpn:
        context.set_alpn_protos([text.encode("ascii") for text in spec.alpn])
    return context
