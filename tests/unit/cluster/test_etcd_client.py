"""etcd3 beside today's protobuf, and what is said about releases of etcd."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from cluster.etcd.version import warning

PROBE = """
import os
from google.protobuf import descriptor_pool
from cluster.etcd.client import etcd3, rpc

assert etcd3.etcdrpc.RangeRequest is rpc.RangeRequest
sent = rpc.RangeRequest(key=b"k", range_end=b"l", limit=3, sort_order=rpc.RangeRequest.DESCEND)
assert rpc.RangeRequest.FromString(sent.SerializeToString()) == sent
assert sent.SerializeToString() == bytes.fromhex("0a016b12016c18032802")
event = rpc.WatchResponse().events.add()
event.kv.key, event.type = b"k", event.DELETE
assert (rpc.NOSPACE, rpc.Compare.MOD) == (1, 2)
try:
    descriptor_pool.Default().FindFileByName("rpc.proto")
except KeyError:
    print("private")
print([name for name in os.environ if "PROTOCOL" in name])
"""


class ClientTests(SynchronousTestCase):
    def test_messages(self) -> None:
        """etcd3's messages work in a process of its own, speak etcd's bytes, and touch neither the default pool nor
        the environment."""
        environment = {key: value for key, value in os.environ.items() if "PROTOCOL" not in key}
        done = subprocess.run([sys.executable, "-W", "error", "-c", PROBE], capture_output=True, text=True,
                              env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)}, timeout=60, check=False)
        self.assertEqual((done.stdout, done.stderr), ("private\n[]\n", ""))

    def test_warnings(self) -> None:
        """Releases that lose consistency or have defects in leases, watches and reads, or are too old, are warned of;
        sound and unknown ones are not."""
        for version, about in (
            ("3.4.0", "revoke leases"), ("3.4.23", "revoke leases"), ("3.4.31", "lose events"), ("3.4.41", "lose events"),
            ("3.4.42", ""), ("3.5.0", "corrupt"), ("3.5.5", "corrupt"), ("3.5.6", "revoke leases"), ("3.5.13", "lose events"),
            ("3.5.22", "lose events"), ("3.5.23", ""), ("3.6.0-rc.1", "lose events"), ("3.6.4", "lose events"), ("3.6.5", ""),
            ("3.7.0", ""), ("3.3.27", "older"), ("2.3.8", "older"), ("", ""), ("unknown", ""),
        ):
            self.assertIn(about, warning(version), version)
            self.assertEqual(bool(warning(version)), bool(about), version)
        self.assertNotIn("revoke", warning("3.4.31"))
        for mended in ("3.4.42", "3.5.23", "3.6.5"):
            self.assertIn(f"all mended in {mended}", warning(f"{mended[:4]}0" if mended[2] != "5" else "3.5.7"))
