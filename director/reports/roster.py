"""Which agent may speak for which host: every decision about what agents say, and no I/O.

Rules:

1. *Identity.* A hello or a post proves an identity by a certificate's DNS name (verified by the transport), by a
   token, or by both if the identity asks for both; the first identity of the configuration that fits counts. The
   identity's patterns say which hosts it may speak for. With no identities configured, anyone on this machine may
   speak for any host; the listener then has only local addresses.
2. *One connection for each agent.* An agent is the pair of identity and agent name. A second hello with the same boot
   id is the same process reconnecting and replaces the first connection. With another boot id it replaces the first
   only if the identity was proven; unproven it is refused (`name_in_use`) while the first is connected. A replaced boot
   id is refused (`stale_boot`) while its successor is connected, so that two processes of one name do not duel.
3. *One speaker for each host.* Among several agents that may speak for a host, the last proven hello speaks; unproven,
   the first does until it is gone. Reports of the others are dropped (`not_speaker`).
   Taking over from one that was heard just now is for restarts and reconnects, so it may happen now and then only, of an
   agent and of a host: of two that fight, the holder stays, and the other is refused (`contested`) or not the speaker.
4. *Sequence numbers* grow within a boot id, over connections and posts. The last one again is `replayed`, a smaller one
   `stale`: both are dropped.
5. A host that is claimed but not (yet) known costs nothing: once it is known, the next report begins to count.

Whatever is dropped is counted through `AgentSink.rejected` and changes nothing else.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections import deque
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol

from cluster.address import parse_address
from cluster.model import HostRef, Identity, LoadReport
from cluster.wire import Hello, HostClaim, Post, Report
from director.core.bucket import TokenBucket

#: Reports per second of one agent, and its burst: ten times the fastest interval that is any use, and what a stalled
#: connection may deliver at once. Beyond, the agent is broken or hostile.
MAX_REPORTS_PER_S = 20.0
REPORT_BURST = 60.0
#: How long a refused agent should stay away: wrong credentials and lost duels do not heal in seconds.
RETRY_REFUSED_S = 30.0
#: Who was heard so long ago, or later, is alive, and taking over from it is a contest: an agent reports every second or so.
ALIVE_S = 5.0
#: Contests of one agent or host: at once, for an agent whose way to us breaks again and again, and one more in so long.
CONTEST_BURST = 5.0
CONTEST_EVERY_S = 30.0
#: Of these, after which the displaced one may come back at once.
CONTESTS_AT_ONCE = 2.0
#: Boot ids remembered as replaced, for each agent: more restarts than this happen only in a crash loop.
RETIRED_BOOTS = 8
#: Agents remembered (their boot id and sequence), connected or not: ten thousand hosts twice over, 1 KB each.
MAX_REMEMBERED = 20_000
#: Hosts that agents without identities may have registered, all together.
MAX_REGISTERED = 1_000
#: `AgentSink.agent_lost` is told this when the agent had announced its leaving.
LEFT = "left"


class Reject(enum.StrEnum):
    """Why something an agent sent was dropped. A label of metrics, so the list is closed."""

    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    UNEXPECTED = "unexpected"  #: a message the state does not allow
    UNKNOWN_TYPE = "unknown_type"  #: too many messages of unknown types
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN_HOST = "forbidden_host"  #: the identity may not speak for it
    UNCLAIMED_HOST = "unclaimed_host"  #: a report names a host that the hello did not
    UNKNOWN_HOST = "unknown_host"  #: not configured, not registered
    NOT_SPEAKER = "not_speaker"  #: another agent speaks for the host
    REPLAYED = "replayed"
    STALE = "stale"
    STALE_BOOT = "stale_boot"
    NAME_IN_USE = "name_in_use"
    REPLACED = "replaced"
    CONTESTED = "contested"  #: took over too often from one that lives
    TOO_FAST = "too_fast"
    TOO_MANY_AGENTS = "too_many_agents"
    NO_TURN = "no_turn"  #: too many connections wait for their handshake
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    SILENT = "silent"  #: connected, but nothing came for long
    STALLED = "stalled"  #: does not read what it is told
    TLS = "tls"  #: the TLS handshake failed


class AgentSink(Protocol):
    """Who is told what agents say. Called on the reactor's thread, after every check of this module. Must not raise."""

    def known(self, ref: HostRef) -> bool:
        """Whether the host exists: configured, or registered and approved. Asked once for every report."""
        ...

    def registered(self, ref: HostRef, agent: str, boot_id: str, address: str, weight: float, *, peer: str,
                   identity: str, most: int) -> str:
        """The agent asks for *ref* to join its group at *address*.

        The sink decides (mode and networks of the group) and answers '' for yes, or the reason for no; '' also for a
        host that an operator configured, which stays as it is.

        :param peer: the agent's own IP address as seen here, which it may always register; '' for a UNIX socket.
        :param identity: the agent's, which may have *most* hosts registered.
        """
        ...

    def agent_connected(self, ref: HostRef, agent: str, boot_id: str, address: str) -> None:
        """From now on this agent speaks for the known host *ref*; *address* is where it connected from. Comes again,
        without `agent_lost` between, when another connection takes over."""
        ...

    def reported(self, ref: HostRef, report: LoadReport) -> None:
        """A heartbeat. Of a posted one there was no `agent_connected`."""
        ...

    def agent_leaving(self, ref: HostRef, deadline_s: float) -> None:
        """The host goes away: drain it; what is open after *deadline_s* may be cut."""
        ...

    def agent_lost(self, ref: HostRef, why: str) -> None:
        """Nobody speaks for *ref* any more; *why* is `LEFT` after a proper farewell."""
        ...

    def rejected(self, reason: str) -> None:
        """Something was dropped; *reason* is a value of `Reject`."""
        ...


class PeerFacts(NamedTuple):
    """What the transport knows about a peer."""

    address: str  #: ``ip:port`` or the UNIX socket's, for people
    ip: str  #: '' for a UNIX socket
    local: bool  #: on this machine
    names: frozenset[str] = frozenset()  #: DNS names of its verified certificate, in lower case


class Refusal(NamedTuple):
    reason: Reject
    retry_after_s: float = RETRY_REFUSED_S


class Speaker:
    """An agent's connection after its hello. Owned by the `Roster`; others only read."""

    __slots__ = ("address", "agent", "boot_id", "claims", "heard_at", "identity", "leaving", "record", "refused")

    def __init__(self, hello: Hello, identity: str, record: _Record, address: str, now: float) -> None:
        self.agent = hello.agent
        self.identity = identity  #: '' when none are configured
        self.boot_id = hello.boot_id
        self.address = address
        self.record = record
        self.claims: dict[str, HostRef] = {}  #: hosts that it may speak for
        self.refused: dict[str, str] = {}  #: hosts that do not count now, and why, as of the hello
        self.heard_at = now
        self.leaving = False


class Admitted(NamedTuple):
    speaker: Speaker
    replaced: Speaker | None  #: whose connection has to be closed
    stay_away_s: float = 0.0  #: how long the replaced one should


class PostAnswer(NamedTuple):
    """What became of a posted report."""

    refused: Reject | None  #: the whole post
    accepted: int = 0  #: hosts whose report counted
    dropped: Mapping[str, Reject] = {}


class _Record:
    """What is remembered of an agent."""

    __slots__ = ("boot_id", "bucket", "contests", "gentle", "retired", "seq", "speaker")

    def __init__(self, boot_id: str, now: float) -> None:
        self.boot_id = boot_id
        self.seq = 0
        self.speaker: Speaker | None = None
        self.retired: deque[str] = deque(maxlen=RETIRED_BOOTS)
        self.bucket = TokenBucket(MAX_REPORTS_PER_S, REPORT_BURST, now)
        self.contests = _contests(now)
        self.gentle = TokenBucket(1 / CONTEST_EVERY_S, CONTESTS_AT_ONCE, now)

    def boot(self, boot_id: str) -> None:
        """Go on with *boot_id*; a new one counts its reports from the start."""
        if boot_id != self.boot_id:
            self.retired.append(self.boot_id)
            self.boot_id, self.seq = boot_id, 0

    def check(self, seq: int, now: float) -> Reject | None:
        """Whether the report *seq* is next; if so it is the last one from now on."""
        if not self.bucket.take(now):
            return Reject.TOO_FAST
        if seq <= self.seq:
            return Reject.REPLAYED if seq == self.seq else Reject.STALE
        self.seq = seq
        return None


def _contests(now: float) -> TokenBucket:
    return TokenBucket(1 / CONTEST_EVERY_S, CONTEST_BURST, now)


_EMPTY = LoadReport()


class Roster:
    """The agents of one director.

    :param identities: as configured; empty: whoever is local may speak for anyone.
    """

    def __init__(self, identities: Mapping[str, Identity], sink: AgentSink) -> None:
        self._identities = identities
        self._patterns = {
            name: tuple(tuple(pattern.split("/")) for pattern in identity.hosts)
            for name, identity in identities.items()
        }
        self._sink = sink
        self._records: dict[tuple[str, str], _Record] = {}
        self._speakers: dict[HostRef, Speaker] = {}
        self._contests: dict[HostRef, TokenBucket] = {}

    def speaker(self, ref: HostRef) -> Speaker | None:
        """Who speaks for *ref*."""
        return self._speakers.get(ref)

    def claimed(self) -> set[HostRef]:
        """The hosts that connected agents claim, known or not."""
        return {ref for each in self._records.values() if each.speaker is not None for ref in each.speaker.claims.values()}

    def hello(self, hello: Hello, evidence: PeerFacts, now: float) -> Admitted | Refusal:
        """Judge a hello; tells the sink which hosts have an agent now."""
        identity = self._identify(hello.token, evidence)
        if identity is None:
            return self._refuse(Reject.UNAUTHENTICATED)
        record = self._record(identity, hello.agent, hello.boot_id, now)
        replaced = record.speaker
        if replaced is not None and hello.boot_id != record.boot_id:
            if hello.boot_id in record.retired:
                return self._refuse(Reject.STALE_BOOT)
            if not self._identities:
                return self._refuse(Reject.NAME_IN_USE)
        stay_away_s = 0.0
        if replaced is not None and now - replaced.heard_at <= ALIVE_S:
            if not record.contests.take(now):
                return self._refuse(Reject.CONTESTED)
            stay_away_s = 0.0 if record.gentle.take(now) else RETRY_REFUSED_S
        record.boot(hello.boot_id)
        speaker = record.speaker = Speaker(hello, identity, record, evidence.address, now)
        for claim in hello.hosts:
            ref = HostRef.parse(claim.host)
            if not self._may_speak(identity, ref):
                speaker.refused[claim.host] = "this agent may not speak for it"
                self._sink.rejected(Reject.FORBIDDEN_HOST)
                continue
            speaker.claims[claim.host] = ref
            declined = self._register(speaker, ref, claim, evidence)
            reason = self._attach(speaker, ref, take_over=bool(self._identities))
            if declined or reason is not None:
                speaker.refused[claim.host] = declined or _SENTENCES[reason or Reject.UNKNOWN_HOST]
        if replaced is not None:
            self._sink.rejected(Reject.REPLACED)
            self._release(replaced, "replaced by a newer connection")
        return Admitted(speaker, replaced, stay_away_s)

    def report(self, speaker: Speaker, report: Report, now: float) -> Reject | None:
        """Pass a report on to the sink.

        :returns: why its connection should be closed; None while all is well or only this report was dropped.
        """
        if speaker.record.speaker is not speaker:
            return Reject.REPLACED
        speaker.heard_at = now
        rejected = speaker.record.check(report.seq, now)
        if rejected is not None:
            self._sink.rejected(rejected)
            return rejected if rejected is Reject.TOO_FAST else None
        common = report.load if report.load is not None or report.hosts else _EMPTY
        for name, ref in speaker.claims.items():
            load = report.hosts.get(name, common)
            if load is None:
                continue
            problem = self._attach(speaker, ref, take_over=False)
            if problem is None:
                self._sink.reported(ref, load)
            else:
                self._sink.rejected(problem)
        for name in report.hosts:
            if name not in speaker.claims:
                self._sink.rejected(Reject.UNCLAIMED_HOST)
        return None

    def leaving(self, speaker: Speaker, deadline_s: float, now: float) -> None:
        """The agent announced that its hosts go away."""
        speaker.heard_at = now
        speaker.leaving = True
        for ref in self._spoken_for(speaker):
            self._sink.agent_leaving(ref, deadline_s)

    def lost(self, speaker: Speaker, why: str) -> None:
        """The agent's connection is gone."""
        if speaker.record.speaker is speaker:
            speaker.record.speaker = None
            self._release(speaker, LEFT if speaker.leaving else why)

    def post(self, post: Post, evidence: PeerFacts, now: float) -> PostAnswer:
        """Judge a posted report: a token's identity and the rules of connected agents, but a connected agent's boot id
        outranks a post's."""
        identity = self._identify(post.token, evidence._replace(names=frozenset()))
        if identity is None or not (self._identities or evidence.local):
            return self._refuse_post(Reject.UNAUTHENTICATED)
        record = self._record(identity, post.agent, post.boot_id, now)
        if post.boot_id != record.boot_id and (record.speaker is not None or post.boot_id in record.retired):
            return self._refuse_post(Reject.STALE_BOOT)
        record.boot(post.boot_id)
        rejected = record.check(post.seq, now)
        if rejected is not None:
            return self._refuse_post(rejected)
        accepted, dropped = 0, {}
        for name, load in post.hosts.items():
            problem = self._judge_posted(name, identity, record)
            if problem is None:
                self._sink.reported(HostRef.parse(name), load)
                accepted += 1
            else:
                dropped[name] = problem
                self._sink.rejected(problem)
        return PostAnswer(None, accepted, dropped)

    def _judge_posted(self, name: str, identity: str, record: _Record) -> Reject | None:
        try:
            ref = HostRef.parse(name)
        except ValueError:
            return Reject.UNKNOWN_HOST
        if not self._may_speak(identity, ref):
            return Reject.FORBIDDEN_HOST
        if not self._sink.known(ref):
            return Reject.UNKNOWN_HOST
        speaker = self._speakers.get(ref)
        return None if speaker is None or speaker is record.speaker else Reject.NOT_SPEAKER

    # --- identity

    def _identify(self, token: str | None, evidence: PeerFacts) -> str | None:
        """The identity proven; '' when none are configured; None when nothing fits."""
        if not self._identities:
            return ""
        digest = hashlib.sha256((token or "").encode("utf-8", "surrogatepass")).hexdigest()
        fits: str | None = None
        for name, identity in self._identities.items():  # all of them: the time taken tells nothing about the token
            by_token = identity.token_sha256 is None or (
                hmac.compare_digest(identity.token_sha256, digest) and token is not None
            )
            by_name = identity.certificate_name is None or identity.certificate_name.lower() in evidence.names
            proves = identity.token_sha256 is not None or identity.certificate_name is not None
            if by_token and by_name and proves and fits is None:
                fits = name
        return fits

    def _may_speak(self, identity: str, ref: HostRef) -> bool:
        if not self._identities:
            return True
        return any(
            len(pattern) == len(ref) and all(map(fnmatchcase, ref, pattern)) for pattern in self._patterns[identity]
        )

    # --- hosts

    def _register(self, speaker: Speaker, ref: HostRef, claim: HostClaim, evidence: PeerFacts) -> str:
        """Ask the sink for what *claim* asks for; '' if it asks for nothing."""
        text = claim.address
        if text is None:
            return ""
        if text.startswith(":"):
            if not evidence.ip:
                return "an agent on a UNIX socket has no address of its own"
            text = f"[{evidence.ip}]{text}" if ":" in evidence.ip else evidence.ip + text
        try:
            address = str(parse_address(text))
        except ValueError as error:
            return str(error)
        identity = self._identities.get(speaker.identity)
        most = MAX_REGISTERED if identity is None else identity.max_registered
        return self._sink.registered(ref, speaker.agent, speaker.boot_id, address, claim.weight, peer=evidence.ip,
                                     identity=speaker.identity, most=most)

    def _attach(self, speaker: Speaker, ref: HostRef, *, take_over: bool) -> Reject | None:
        """Let *speaker* speak for *ref* if it may; None if it does."""
        if not self._sink.known(ref):
            if self._speakers.get(ref) is speaker:
                del self._speakers[ref]
            return Reject.UNKNOWN_HOST
        current = self._speakers.get(ref)
        if current is speaker:
            return None
        mine = current is not None and current.record is speaker.record
        if current is not None and not mine and not (take_over and self._wins(speaker, ref, current)):
            return Reject.NOT_SPEAKER
        self._speakers[ref] = speaker
        self._sink.agent_connected(ref, speaker.agent, speaker.boot_id, speaker.address)
        return None

    def _wins(self, speaker: Speaker, ref: HostRef, current: Speaker) -> bool:
        """Whether *speaker*, heard now, may take *ref* over."""
        now = speaker.heard_at
        if now - current.heard_at > ALIVE_S:
            return True
        if len(self._contests) >= MAX_REMEMBERED:
            self._contests.clear()
        return self._contests.setdefault(ref, _contests(now)).take(now)

    def _spoken_for(self, speaker: Speaker) -> list[HostRef]:
        return [ref for ref in speaker.claims.values() if self._speakers.get(ref) is speaker]

    def _release(self, speaker: Speaker, why: str) -> None:
        for ref in self._spoken_for(speaker):
            del self._speakers[ref]
            self._sink.agent_lost(ref, why)

    # --- memory

    def _record(self, identity: str, agent: str, boot_id: str, now: float) -> _Record:
        key = (identity, agent)
        record = self._records.pop(key, None) or _Record(boot_id, now)
        self._records[key] = record  # the last one now: oldest first is the order of forgetting
        if len(self._records) > MAX_REMEMBERED:
            oldest = next((each for each, held in self._records.items() if held.speaker is None), None)
            if oldest is not None and oldest != key:
                del self._records[oldest]
        return record

    def _refuse(self, reason: Reject) -> Refusal:
        self._sink.rejected(reason)
        return Refusal(reason)

    def _refuse_post(self, reason: Reject) -> PostAnswer:
        self._sink.rejected(reason)
        return PostAnswer(reason)


_SENTENCES = {
    Reject.UNKNOWN_HOST: "no such host is configured, or it is not approved yet",
    Reject.NOT_SPEAKER: "another agent speaks for it",
}
