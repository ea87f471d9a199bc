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
        """Releases that lose consistency, or are too old, are warned of; others and unknown ones are not."""
        for version, warned in (("3.4.23", False), ("3.4.0", False), ("3.5.0", True), ("3.5.1", True), ("3.5.5", True),
                                ("3.5.6", False), ("3.5.21", False), ("3.6.0-rc.1", False), ("3.3.27", True),
                                ("2.3.8", True), ("", False), ("unknown", False)):
            self.assertEqual(bool(warning(version)), warned, version)
        self.assertIn("3.5.1", warning("3.5.1"))
