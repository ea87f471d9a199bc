"""What TLS is spoken: Mozilla's "intermediate" configuration, version 5.7 (ssl-config.mozilla.org, guidelines/5.7.json).

TLS 1.3 with its three suites, TLS 1.2 with forward secrecy and authenticated encryption. Its DHE suites are left out: they
are for clients without elliptic curves, of which none is left that has TLS 1.2, and cost a server more than all others.
"""

from __future__ import annotations

from typing import Literal

from OpenSSL import SSL
from OpenSSL._util import lib

_CIPHERS = b":".join((
    b"ECDHE-ECDSA-AES128-GCM-SHA256", b"ECDHE-RSA-AES128-GCM-SHA256", b"ECDHE-ECDSA-AES256-GCM-SHA384",
    b"ECDHE-RSA-AES256-GCM-SHA384", b"ECDHE-ECDSA-CHACHA20-POLY1305", b"ECDHE-RSA-CHACHA20-POLY1305",
))
_TLS13 = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#: The first, with a part that quantum computers do not break, from OpenSSL 3.5 on.
_GROUPS = (b"X25519MLKEM768:X25519:prime256v1:secp384r1", b"X25519:prime256v1:secp384r1")
_PARTIAL_WRITES = 0x1  # SSL_MODE_ENABLE_PARTIAL_WRITE of openssl/ssl.h, for which pyOpenSSL has no name
_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


def harden(context: SSL.Context, min_version: Literal["1.2", "1.3"] = "1.2") -> None:
    """Have a server's or a client's *context* speak nothing weaker.

    No renegotiation: it costs a server more than a client, and TLS 1.3 has none. No compression (CRIME).
    """
    context.set_min_proto_version(_VERSIONS[min_version])
    context.set_cipher_list(_CIPHERS)
    context.set_tls13_ciphersuites(_TLS13)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    _set_groups(context)
    economize(context)


def economize(context: SSL.Context) -> None:
    """Have connections of *context* cost less.

    Buffers are given back while nothing is on its way: an idle connection costs a third. A write is of all that is offered,
    where pyOpenSSL would have each stop after a record of 16 KB: 4 % of the CPU of a GB.
    """
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.clear_mode(_PARTIAL_WRITES)


def _set_groups(context: SSL.Context) -> None:
    """pyOpenSSL has no name for it. Without, a few more curves are offered, which are slow and sound."""
    choose = getattr(lib, "SSL_CTX_set1_curves_list", None)
    if choose is not None:
        any(choose(context._context, groups) == 1 for groups in _GROUPS)
        lib.ERR_clear_error()
