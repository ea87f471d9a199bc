"""The store's page has every kind of key, and every key of each record."""

from __future__ import annotations

import re
from typing import get_args

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from cluster.keys import Keys, Place
from docs._ext.keys import RECORDS, keys_page


class KeysPageTests(SynchronousTestCase):
    def test_every_kind(self) -> None:
        self.assertEqual({kind for kind, _, _, _ in RECORDS}, set(get_args(Place)))

    def test_keys_are_what_they_say(self) -> None:
        """Each key is one of that kind, as the store's own parser takes it."""
        for kind, key, _, _ in RECORDS:
            example = key.partition(",")[0].replace("ADDRESS", "10.0.0.100").replace("TIME", "20260131T120000.000000Z")
            self.assertIsInstance(Keys("CLUSTER").parse(example), kind)

    def test_every_key_of_a_record(self) -> None:
        """With its type and the comment that it has in the code."""
        parts = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", keys_page(), flags=re.M | re.S))
        for _, _, record, _ in RECORDS:
            if record is not None and record.__name__ != "Service":
                for field in msgspec.structs.fields(record):
                    self.assertIn(f"| `{field.encode_name}` | ", parts[record.__name__])
        self.assertIn("| `role` | `full`, `readonly` | `\"readonly\"` |", parts["User"])
        self.assertIn("| `term` | integer |  | under which it was taken |", parts["VipOwner"])
