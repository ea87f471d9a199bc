"""The constants of a takeover, in nanoseconds, and the inequalities that make them safe (I1-I4) and useful (I5-I7).

Clocks of two directors may err by `DRIFT` against true time, so what one measures may be `RATIO` times as long for another;
`SLACK_NS` is for reading a clock and for the kernel's tick.
"""

from __future__ import annotations

import msgspec

from cluster.errors import Misuse

MS = 1_000_000
DRIFT = 0.01
RATIO = (1 + DRIFT) / (1 - DRIFT)
SLACK_NS = 5 * MS


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Every director of a cluster has the same ones; `Timing.covers` finds those that do not.

    :raises Misuse: an inequality does not hold; it is named.
    """

    beat_ns: int = 50 * MS  #: B: between two beats of an owner
    late_ns: int = 100 * MS  #: A: an acknowledgement that takes longer is missing
    silence_ns: int = 300 * MS  #: S: an owner unheard for so long may be dead
    promise_ns: int = 450 * MS  #: P: for which an acknowledging director answers nobody
    count_ns: int = 430 * MS  #: Q: what an owner counts of it, from its beat's sending
    wait_ns: int = 450 * MS  #: H: from the first sight of what a campaign compared until its winner answers
    etcd_count_ns: int = 430 * MS  #: QH: what an owner counts of a beat in the store, from its sending
    etcd_beat_ns: int = 100 * MS  #: between two beats in the store
    etcd_ns: int = 100 * MS  #: what the store takes for a transaction, nearly always
    answer_ns: int = 500 * MS  #: after which a transaction's outcome is read instead of waited for
    remove_ns: int = 3000 * MS  #: a member silent for so long may be left out
    ticket_ns: int = 0  #: K: what the kernel's fence ends earlier than it is told: 30 ms with nftables alone

    @classmethod
    def of(cls, promise_s: float) -> Timing:
        """All of them in proportion to P, which is an operator's to set."""
        promise = round(promise_s * 1000 * MS)
        counts = min(promise * 43 // 45, int((promise - SLACK_NS) / RATIO))
        return cls(
            beat_ns=promise // 9, late_ns=promise * 2 // 9, silence_ns=promise * 2 // 3, promise_ns=promise, count_ns=counts,
            wait_ns=promise, etcd_count_ns=counts, etcd_beat_ns=promise * 2 // 9, etcd_ns=promise * 2 // 9,
            answer_ns=promise * 10 // 9, remove_ns=max(3000 * MS, 6 * promise),
        )

    def __post_init__(self) -> None:
        if self.beat_ns < MS or min(msgspec.structs.astuple(self)) < 0:
            raise Misuse("takeover: beats are a millisecond apart at least, and no time is negative")
        broken = self.broken()
        if broken:
            raise Misuse(f"takeover: {broken[0]}")

    def broken(self) -> list[str]:
        """Each inequality that does not hold, in words."""
        lost_link = self.late_ns + 2 * self.beat_ns + self.etcd_ns
        rows = (
            ("I1: count * R + 5 ms <= promise", self.count_ns * RATIO + SLACK_NS, self.promise_ns),
            ("I2: etcd_count * R + 5 ms <= wait", self.etcd_count_ns * RATIO + SLACK_NS, self.wait_ns),
            ("I3: promise <= wait", self.promise_ns, self.wait_ns),
            ("I4: etcd_count <= promise", self.etcd_count_ns, self.promise_ns),
            ("I5: late + 2 beats + etcd < count - ticket", lost_link + 1, self.count_ns - self.ticket_ns),
            ("I6: late + 2 beats + etcd <= silence", lost_link, self.silence_ns),
            ("I7: silence + beat + etcd <= promise", self.silence_ns + self.beat_ns + self.etcd_ns, self.promise_ns),
        )
        return [f"{name} does not hold: {left / MS:g} > {right / MS:g} ms" for name, left, right in rows if left > right]

    def covers(self, count_ns: int) -> bool:
        """Whether this director's promise, and its wait, last as long as another counts on (I1, I2)."""
        return count_ns * RATIO + SLACK_NS <= min(self.promise_ns, self.wait_ns)
