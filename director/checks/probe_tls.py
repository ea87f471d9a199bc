"""TLS of probes: whom a probe trusts, which name it asks for, and whether the host's certificate has that name.

There is one OpenSSL context for all hosts that are probed alike: one with the authorities that the system trusts takes 30 ms
and a megabyte. So it cannot know whose name to look for; `Handshake.verify` does, once the chain is verified.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from cluster.address import Address
from cluster.errors import ConfigError, Problem
from cluster.model import ProbeTLS
from cluster.pem import PemFiles
from cluster.renewal import Renewed
from director.timing.seldom import Seldom, more

#: Ways to probe that are remembered. What was configured before is forgotten when there are more.
MAX_CONTEXTS = 64
#: Between two lines in the log about files that are of no use.
COMPLAIN_S = 60.0


class Unfit(Exception):
    """A probe cannot be made with the files as they are, which is not the host's fault; says why."""


class Contexts:
    """Of all that are configured; files that change are read again, as `cluster.renewal` says."""

    _log = Logger()

    def __init__(self) -> None:
        self._of: dict[tuple[ProbeTLS, tuple[bytes, ...]], Renewed[Any]] = {}
        self._seldom = Seldom(every_s=COMPLAIN_S)

    def handshake(self, spec: ProbeTLS, target: Address, protocols: tuple[bytes, ...] = ()) -> Handshake:
        """For one probe of *target*, before its name is looked up.

        :param protocols: offered by ALPN.

        :raises Unfit: a file cannot be read, or is not what it should be.
        """
        renewed = self._of.get((spec, protocols))
        if renewed is None:
            if len(self._of) >= MAX_CONTEXTS:
                self._of.clear()
            try:
                renewed = Renewed("probe.tls", (spec.ca, spec.certificate, spec.key),
                                  lambda files: _context(files, spec, protocols))
            except ConfigError as error:
                why = "; ".join(map(str, error.problems))
                if (held := self._seldom.due(spec)) is not None:
                    self._log.warn("hosts are not probed: {why}{more}", why=why, more=more(held))
                raise Unfit(why) from error
            self._of[spec, protocols] = renewed
        return Handshake(renewed.current(), spec.server_name or target.host, verified=spec.verify)


@implementer(IOpenSSLClientConnectionCreator)
class Handshake:
    """One connection's.

    :param name: a host name or an IP address, which the certificate must have.
    """

    def __init__(self, context: SSL.Context, name: str, *, verified: bool) -> None:
        self._context = context
        self._name = name
        self._verified = verified

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if self._name and not Address(self._name, 0).is_ip:
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        return connection

    def verify(self, connection: SSL.Connection) -> str:
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
    _context(files, spec)
    return files.problems


def trouble(reason: BaseException) -> str:
    """Why a handshake failed, in OpenSSL's words; empty: it did not, the connection just ended."""
    if isinstance(reason, SSL.Error) and reason.args and isinstance(reason.args[0], list) and reason.args[0]:
        return str(reason.args[0][-1][-1])  # the last of (library, function, reason): those before it led to that
    return ""


def _context(files: PemFiles, spec: ProbeTLS, protocols: tuple[bytes, ...] = ()) -> Any:
    own = files.identity(spec.certificate, spec.key) if spec.certificate is not None and spec.key is not None else {}
    trust: Any = None
    if spec.verify:
        trust = ssl.platformTrust() if spec.ca is None else files.authorities("ca", spec.ca)
    if files.problems:
        return None
    context = ssl.CertificateOptions(trustRoot=trust, raiseMinimumTo=ssl.TLSVersion.TLSv1_2, **own).getContext()
    if protocols:  # which Twisted would take for a server's
        context.set_alpn_protos(list(protocols))
    return context
