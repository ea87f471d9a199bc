"""SCRAM-SHA-256, by the example of RFC 7677, 3."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from director.checks.dialogues import ProbeFailed
from director.checks.dialogues.scram import MAX_ITERATIONS, Scram

NONCE = "rOprNGfwEbeRWgbNEkqO"
CHALLENGE = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


class ScramTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.scram = Scram("pencil", NONCE, "user")

    def test_example(self) -> None:
        self.assertEqual(self.scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        self.assertEqual(self.scram.final(CHALLENGE), b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                                                      b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
        self.scram.verify(FINAL)

    def test_server_that_does_not_know_the_password(self) -> None:
        self.scram.first()
        self.scram.final(CHALLENGE)
        self.assertRaises(ProbeFailed, self.scram.verify, FINAL.replace(b"6rri", b"7rri"))
        self.assertRaises(ProbeFailed, self.scram.verify, b"e=other-error")

    def test_challenges_that_are_none(self) -> None:
        """Another nonce, none of its own, no salt, too much work, no fields."""
        for challenge in (
            CHALLENGE.replace(b"r=rOpr", b"r=xOpr"), CHALLENGE.replace(b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", b""),
            CHALLENGE.replace(b"s=W22Z", b"s=!22Z"), CHALLENGE.replace(b"s=", b"x="), b"", b"r", b"e=unknown-user",
            CHALLENGE.replace(b"4096", b"%d" % (MAX_ITERATIONS + 1)), CHALLENGE.replace(b"4096", b"0"), CHALLENGE.replace(b"4096", b"x"),
        ):
            self.assertRaises(ProbeFailed, self.scram.final, challenge)
