"""The directors as a cluster: who leads, what they see of each other and of the store, and what each lacks."""

from __future__ import annotations

from deploy.dashboards.board import DIRECTORS, RATE, Board, figure, lines, rows

PROCESS = f'job="txdirector", {DIRECTORS}'


def cluster() -> Board:
    board = Board("cluster", "cluster")
    board.add(
        4,
        figure("Directors up", f"sum(up{{{PROCESS}}})", green_from=1),
        figure("Leaders", f"sum(txdirector_leads{{{DIRECTORS}}})", green_from=1, description="One for each cluster."),
        figure("Virtual addresses held", f"sum(txdirector_vips_held{{{DIRECTORS}}})"),
        figure("Links between directors", f"sum(txdirector_peers_connected{{{DIRECTORS}}}) / 2"),
        figure("Versions", f"count(count by (version) (txdirector_build_info{{{DIRECTORS}}}))", red_from=2),
        figure("First certificate to end",
               f"min(txdirector_certificate_expires_timestamp_seconds{{{DIRECTORS}}}) - time()", unit="s", green_from=14 * 86400),
    )
    board.row("Lead and peers")
    board.add(
        8,
        lines("Leads", (f"txdirector_leads{{{DIRECTORS}}}", "{{instance}}"), most=1, stacked=False),
        lines("Virtual addresses held", (f"txdirector_vips_held{{{DIRECTORS}}}", "{{instance}}")),
        lines("Other directors connected", (f"txdirector_peers_connected{{{DIRECTORS}}}", "{{instance}}")),
        lines("Suspects itself, waits, or goes by a snapshot",
              (f"txdirector_isolated{{{DIRECTORS}}}", "{{instance}} isolated"),
              (f"txdirector_grace{{{DIRECTORS}}}", "{{instance}} evicts nobody yet"),
              (f"txdirector_cold_start{{{DIRECTORS}}}", "{{instance}} cold start"), most=1),
        lines("Problems", (f"txdirector_problems{{{DIRECTORS}}}", "{{instance}}"),
              (f"txdirector_store_problems{{{DIRECTORS}}}", "{{instance}} records that cannot be read")),
        lines("Running since", (f"time() - txdirector_start_time_seconds{{{DIRECTORS}}}", "{{instance}}"), unit="s"),
    )
    board.row("Store")
    board.add(
        8,
        lines("Store", (f"txdirector_store_available{{{DIRECTORS}}}", "{{instance}} answers"),
              (f"txdirector_store_writable{{{DIRECTORS}}}", "{{instance}} takes changes"), most=1),
        lines("Size of etcd", (f"txdirector_store_bytes{{{DIRECTORS}}}", "{{instance}}"), unit="bytes"),
        lines("Written", (f"rate(txdirector_store_written_bytes_total{{{DIRECTORS}}}{RATE})", "{{instance}} bytes"), unit="Bps"),
        lines("Transactions", (f"rate(txdirector_store_writes_total{{{DIRECTORS}}}{RATE})", "{{instance}}"), unit="ops"),
    )
    board.add(
        16,
        rows("Certificates", f"txdirector_certificate_expires_timestamp_seconds{{{DIRECTORS}}} - time()",
             description="Seconds until each ends."),
    )
    board.row("What each has and lacks")
    board.add(
        8,
        lines("CPU", (f"rate(process_cpu_seconds_total{{{PROCESS}}}{RATE})", "{{instance}}"), unit="percentunit"),
        lines("Memory", (f"process_resident_memory_bytes{{{PROCESS}}}", "{{instance}}"), unit="bytes"),
        lines("Garbage collections",
              (f"sum by (instance) (rate(python_gc_collections_total{{{PROCESS}}}{RATE}))", "{{instance}}"), unit="ops"),
        lines("Descriptors", (f"txdirector_descriptors_in_use{{{DIRECTORS}}} / txdirector_descriptors_limit{{{DIRECTORS}}}",
                              "{{instance}}"), unit="percentunit", most=1),
        lines("Places for clients that are taken",
              (f"txdirector_client_places_taken{{{DIRECTORS}}} / (txdirector_client_places{{{DIRECTORS}}} > 0)", "{{instance}}"),
              unit="percentunit", most=1),
        lines("Ports to the host that has the fewest left",
              (f"max by (instance) (txdirector_host_ports_ratio{{{DIRECTORS}}}) or vector(0)", "{{instance}}"),
              unit="percentunit", most=1),
        lines("Shortages", (f"sum by (instance, of) (increase(txdirector_shortages_total{{{DIRECTORS}}}{RATE})) or vector(0)",
                            "{{instance}} {{of}}")),
        lines("Listen queues",
              (f"max by (instance) (txdirector_listen_queue{{{DIRECTORS}}})", "{{instance}} the longest"),
              (f"increase(txdirector_listen_overflows_total{{{DIRECTORS}}}{RATE})", "{{instance}} overflows")),
        lines("Relay", (f"sum by (instance) (txdirector_relay_open_connections{{{DIRECTORS}}})", "{{instance}} connections"),
              (f"sum by (instance) (txdirector_relay_connecting{{{DIRECTORS}}})", "{{instance}} connecting"),
              (f"sum by (instance) (txdirector_relay_stalled_connections{{{DIRECTORS}}})", "{{instance}} slow readers")),
        lines("Admin", (f"txdirector_admin_connections{{{DIRECTORS}}}", "{{instance}} connections"),
              (f"increase(txdirector_admin_refusals_total{{{DIRECTORS}}}{RATE})", "{{instance}} changes refused")),
        lines("Hooks", (f'sum by (instance, hook, outcome) (increase(txdirector_hook_records_total{{{DIRECTORS}}}{RATE})) '
                        "or vector(0)", "{{instance}} {{hook}} {{outcome}}")),
        lines("Log lines dropped",
              (f"increase(txdirector_log_lines_dropped_total{{{DIRECTORS}}}{RATE}) or vector(0)", "{{instance}}")),
    )
    return board
