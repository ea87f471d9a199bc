"""Tests mirror files: a module without a test file of its own is where the next fault will be."""

from __future__ import annotations

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
UNIT = "tests/unit/"

#: Where a module is tested that has no `test_<module>*.py` in the unit tests: by files' names below ``tests/``. Most are parts
#: of something that is tested as a whole; those that need sockets, processes or etcd are tested with the real ones.
ELSEWHERE = {
    # the agent: its test files carry its name
    "agent/cli.py": "integration/test_cli.py", "agent/config.py": "unit/agent/test_agent_config.py",
    "agent/connections.py": "unit/agent/test_agent_load.py", "agent/load.py": "unit/agent/test_agent_load.py",
    "agent/process.py": "integration/test_states.py", "agent/scraping.py": "integration/test_scraping.py", "agent/reporter.py": "unit/agent/test_agent_service.py",
    "agent/sampler.py": "unit/agent/test_agent_service.py", "agent/service.py": "unit/agent/test_agent_service.py",
    "agent/tap.py": "unit/agent/test_agent_config.py",
    # shared state
    "cluster/completion.py": "integration/test_cli.py", "cluster/errors.py": "unit/cluster/test_validate.py",
    "cluster/file.py": "unit/cluster/test_embedded_stores.py", "cluster/memory.py": "unit/cluster/test_embedded_stores.py",
    "cluster/model/services.py": "unit/config/test_files.py", "cluster/model/states.py": "unit/core/test_inventory.py",
    "cluster/shortage.py": "unit/resources/test_shortages.py", "cluster/store.py": "contract/test_store.py",
    "cluster/systemd.py": "integration/test_systemd.py",
    "director/ha/leads.py": "unit/ha/test_reigning.py", "director/ha/owning.py": "unit/ha/test_spreading.py",
    "director/ha/open_connections.py": "integration/test_open_connections.py",
    "cluster/takeover/state.py": "unit/cluster/takeover/test_owner.py",
    "cluster/lines.py": "unit/cluster/test_wire.py", "cluster/etcd/past.py": "unit/cluster/test_etcd_past.py",
    "cluster/etcd/client.py": "unit/cluster/test_etcd_client.py",
    "cluster/etcd/connection.py": "integration/test_etcd_store.py", "cluster/etcd/leases.py": "unit/cluster/test_etcd_leases.py",
    "cluster/etcd/replay.py": "integration/test_etcd_store.py",
    "cluster/etcd/room.py": "integration/test_etcd_store.py", "cluster/etcd/store.py": "integration/test_etcd_store.py",
    "cluster/etcd/stream.py": "integration/test_etcd_store.py", "cluster/etcd/told.py": "unit/cluster/test_etcd_told.py",
    "cluster/etcd/version.py": "unit/cluster/test_etcd_client.py", "cluster/etcd/watching.py": "integration/test_etcd_store.py",
    # the control interface: its operations by every transport, its pages by what they show
    "director/admin/configuration.py": "unit/admin/test_control.py",
    "director/admin/gate.py": "unit/admin/test_auth.py", "director/admin/hosts.py": "unit/admin/test_control.py",
    "director/admin/looking.py": "unit/admin/test_control.py", "director/admin/offers.py": "unit/admin/test_control.py",
    "director/admin/openapi.py": "unit/admin/test_rest_reference.py", "director/admin/operation.py": "unit/admin/test_control.py",
    "director/admin/people.py": "unit/admin/test_users.py", "director/admin/runtime.py": "unit/admin/test_control.py",
    "director/admin/site.py": "unit/admin/test_rest.py", "director/admin/together.py": "unit/admin/test_control.py",
    "director/admin/trail.py": "unit/admin/test_control.py", "director/admin/userbook.py": "unit/admin/test_users.py",
    "director/admin/vips.py": "unit/admin/test_control.py",
    "director/admin/web.py": "unit/admin/test_rest.py", "director/admin/ui/acts.py": "unit/admin/ui/test_forms.py",
    "director/admin/ui/assembly.py": "unit/admin/ui/test_pages.py", "director/admin/ui/resource.py": "unit/admin/ui/test_pages.py",
    "director/admin/ui/templates.py": "unit/admin/ui/test_pages.py", "director/admin/ui/visitors.py": "unit/admin/ui/test_forms.py",
    # sockets
    "director/checks/bound_client.py": "integration/test_probes.py", "director/checks/knock.py": "integration/test_probes.py",
    "director/checks/dialogues/__init__.py": "clients/test_checks.py",
    "director/checks/dialogues/interface.py": "unit/checks/dialogues/test_http.py",
    "director/engine/discovering.py": "integration/test_discovering.py",
    "director/checks/probe_tls.py": "integration/test_probe_tls.py",
    "director/doors/manhole.py": "integration/test_manhole.py",
    "director/ports/binding.py": "integration/test_listener.py", "director/ports/side_port.py": "integration/test_control_socket.py",
    "director/handover/channel.py": "integration/test_upgrade.py", "director/handover/estate.py": "integration/test_upgrade.py",
    "director/handover/giving.py": "integration/test_upgrade.py", "director/handover/taking.py": "integration/test_upgrade.py",
    "director/ports/activation.py": "integration/test_activation.py", "director/ports/passing.py": "integration/test_upgrade.py",
    "director/ports/sockets.py": "integration/test_listener.py",
    "director/reports/listening.py": "unit/reports/test_agents.py",
    "director/traffic/departures.py": "integration/test_departures.py", "director/traffic/listener.py": "integration/test_listener.py",
    "director/traffic/listening.py": "integration/test_listener.py", "director/traffic/proxy_in.py": "integration/test_listener.py",
    "director/traffic/peeking.py": "integration/test_sni.py", "director/traffic/sni_router.py": "integration/test_sni.py",
    "director/traffic/secure_frontend.py": "integration/test_tls.py", "director/tls/contexts.py": "integration/test_tls.py",
    "director/tls/handshakes.py": "integration/test_tls.py", "director/tls/profile.py": "integration/test_tls.py",
    "director/tls/dialling.py": "integration/test_tls.py",
    # the relays: one suite for all
    "director/relay/openssl.py": "contract/test_relay_tls.py", "director/relay/tls_end.py": "contract/test_relay_tls.py",
    "director/relay/tls_relay.py": "contract/test_relay_tls.py",
    "director/relay/__init__.py": "contract/test_relay.py", "director/relay/choice.py": "contract/test_relay.py",
    "director/relay/descriptors.py": "contract/test_relay.py", "director/relay/interface.py": "contract/test_relay.py",
    "director/relay/link.py": "contract/test_relay.py", "director/relay/native.py": "contract/test_relay.py",
    "director/relay/pipes.py": "contract/test_relay.py", "director/relay/python.py": "contract/test_relay.py",
    "director/relay/stream.py": "contract/test_relay_events.py", "director/relay/timed_wheel.py": "unit/relay/test_wheel.py",
    "director/relay/turnarounds.py": "contract/test_relay_turnarounds.py",
    # commands and processes
    "director/ctl/users.py": "integration/test_ctl_commands.py",
    "director/admin/scraping.py": "integration/test_metrics_port.py",
    "director/cli.py": "integration/test_cli.py", "director/process.py": "integration/test_own_process.py",
    "director/service.py": "integration/test_director.py", "director/ctl/client.py": "integration/test_ctl_commands.py",
    "director/ctl/completion.py": "integration/test_cli.py",
    "director/ctl/configuring.py": "integration/test_ctl_apply.py", "director/ctl/hosts.py": "unit/ctl/test_wait.py",
    "director/ctl/looking.py": "integration/test_ctl_commands.py", "director/ctl/main.py": "integration/test_ctl_commands.py",
    "director/ctl/process.py": "integration/test_ctl_commands.py", "director/ctl/structure.py": "integration/test_ctl_commands.py",
    "director/ctl/together.py": "integration/test_ctl_commands.py",
    # configuration
    "director/config/init/adding.py": "unit/config/test_command.py",
    "director/config/node.py": "unit/config/test_files.py",
    "director/config/check.py": "unit/config/test_files.py", "director/config/secret.py": "integration/test_peers.py",
    "director/config/self_signed.py": "unit/config/test_machine.py",
    # parts of the inventory, of the pool and of what is told of them
    "director/core/entries.py": "unit/core/test_inventory.py", "director/core/host.py": "unit/core/test_pool.py",
    "director/core/judging.py": "unit/core/test_inventory_others.py", "director/core/others.py": "unit/core/test_merge.py",
    "director/core/transitions.py": "unit/core/test_health.py",
    "director/core/schedulers/base.py": "unit/core/test_schedulers.py",
    "director/core/schedulers/loadaware/scheduler.py": "unit/core/test_loadaware.py",
    "director/core/schedulers/least.py": "unit/core/test_schedulers.py",
    "director/core/schedulers/registry.py": "unit/core/test_schedulers.py",
    "director/core/schedulers/simple.py": "unit/core/test_schedulers.py",
    "director/core/schedulers/structures.py": "unit/core/test_schedulers.py",
    # of the node, the cluster and the operations
    "director/operations/sides.py": "integration/test_canaries.py",
    "director/operations/node.py": "unit/engine/test_swapping.py", "director/operations/users.py": "unit/admin/test_users.py",
    "director/engine/errors.py": "unit/engine/test_swapping.py", "director/engine/probing.py": "unit/checks/test_probes.py",
    "director/engine/soundness.py": "unit/engine/test_sync.py", "director/ha/device.py": "integration/test_vips.py", "director/ha/exchange.py": "integration/test_exchange.py",
    **{f"director/ha/fence/{name}.py": "integration/test_fence.py"
       for name in ("bpf", "choosing", "elements", "interfaces", "nft", "program", "tc")},
    "director/ha/fence/interface.py": "unit/ha/test_vips.py", "director/ha/fence/lifetime.py": "unit/ha/test_vips.py",
    "director/ha/keeping.py": "integration/test_states.py", "director/ha/neighbours.py": "integration/test_vips.py",
    "director/ha/netlink.py": "integration/test_vips.py", "director/ha/peers.py": "integration/test_peers.py",
    "director/ha/stores.py": "integration/test_upgrade.py",
    "director/ha/whereabouts.py": "unit/ha/test_membership.py", "director/metrics/certificates.py": "integration/test_admin_endpoints.py",
    "director/metrics/gauges.py": "unit/admin/test_rest.py", "director/operations/clients.py": "integration/test_ctl_commands.py",
    "director/operations/refusals.py": "unit/operations/test_audit.py", "director/operations/services.py": "unit/engine/test_swapping.py",
    "director/resources/descriptors.py": "unit/resources/test_usage.py", "director/timing/seldom.py": "unit/resources/test_shortages.py",
    "director/traffic/connection.py": "unit/traffic/test_frontend.py", "director/traffic/origins.py": "unit/doors/test_control_socket.py",
    "director/traffic/tries.py": "unit/traffic/test_frontend.py",
}


def has_code(path: Path) -> bool:
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(ast.parse(path.read_text())))


def room_of(path: Path) -> str:
    """Where its tests belong, below `UNIT`."""
    package, *inner = path.relative_to(ROOT).parts
    return inner[0] if package == "director" and len(inner) > 1 else package


def is_mirrored(path: Path) -> bool:
    tests = (test.stem for test in (ROOT / UNIT / room_of(path)).rglob("test_*.py"))
    return any(test == f"test_{path.stem}" or test.startswith(f"test_{path.stem}_") for test in tests)


class MirrorTests(SynchronousTestCase):
    def test_every_module_has_a_place(self) -> None:
        """A test file of its own, or a line here that says where it is tested."""
        without = {
            str(path.relative_to(ROOT))
            for package in ("agent", "cluster", "director") for path in (ROOT / package).rglob("*.py")
            if has_code(path) and not is_mirrored(path)
        }
        self.assertEqual(without, set(ELSEWHERE))

    def test_places(self) -> None:
        """They are there."""
        self.assertEqual([each for each in set(ELSEWHERE.values()) if not (ROOT / "tests" / each).is_file()], [])
