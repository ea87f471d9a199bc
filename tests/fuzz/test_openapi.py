"""REST as its OpenAPI document describes it, asked at random by schemathesis: a whole director answers."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from director.admin.control import OPERATIONS
from director.admin.openapi import document
from director.admin.rest import ROUTES
from tests.integration.test_cli import Running, until
from tests.unit.admin.small_director import HASHER

#: No probes, nothing that listens beyond loopback, and no name server: whatever is configured at random stays here.
CONFIGURATION = """
[node]
resolvers = ["127.0.0.1:9"]
[[node.admin.endpoints]]
listen = "127.0.0.1:0"
[node.admin.users.ada]
password = "{hash}"
role = "full"
[services.web]
listen = ["127.0.0.1:0"]
[services.web.groups.main]
health.probe.kind = "none"
hosts.a = "127.0.0.1:9"
"""
ADMIN = re.compile(r"admin at (http://127\.0\.0\.1:\d+)")
#: Requests of each kind; each costs some milliseconds.
EXAMPLES = 40
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
AUTH = ("ada", "analytical")

SCHEMA = schemathesis.openapi.from_dict(json.loads(document(ROUTES, OPERATIONS)))
DESCRIBED = {operation.label: operation for result in SCHEMA.get_all_operations() if (operation := result.ok())}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A director that runs within twist, and so refuses to end its process."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "director.toml"
        path.write_text(CONFIGURATION.format(hash=HASHER.hash(AUTH[1])))
        log = Path(directory) / "log"  # a pipe would fill
        running = Running(
            "-m", "twisted", "--log-format", "text", "--log-file", str(log), "director", "--config", str(path)
        )
        try:
            until(lambda: log.exists() and ADMIN.search(log.read_text()))
            found = ADMIN.search(log.read_text())
            assert found is not None
            yield found[1]
        finally:
            running.end()
        assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("label", DESCRIBED)
def test_answers_as_described(url: str, label: str) -> None:
    """No request that the document allows, nor a damaged one, is answered with 500; every answer is one that the
    document describes."""

    @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
    @given(DESCRIBED[label].as_strategy() | DESCRIBED[label].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def ask(case: schemathesis.Case) -> None:
        case.validate_response(case.call(base_url=url, auth=AUTH, timeout=30), checks=CHECKS)

    ask()


def test_document_is_complete() -> None:
    """Every operation of the control interface is in the document."""
    described = set(re.findall(r"Operation `(\w+)`", document(ROUTES, OPERATIONS).decode()))
    assert described == set(OPERATIONS)
