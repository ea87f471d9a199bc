"""Is all well, and if not, where?"""

from __future__ import annotations

from deploy.dashboards.board import DIRECTORS, RATE, Board, figure, lines, rows


def overview() -> Board:
    board = Board("overview", "overview")
    board.add(
        4,
        figure("Directors up", f'sum(up{{job="txdirector", {DIRECTORS}}})', green_from=1),
        figure("Leaders", f"sum(txdirector_leads{{{DIRECTORS}}})"),
        figure("Problems", f"sum(txdirector_problems{{{DIRECTORS}}})", red_from=1,
               description="The status of each director names them."),
        figure("Alerts", 'count(ALERTS{alertname=~"Txdirector.*", alertstate="firing", cluster=~"$cluster"}) or vector(0)',
               red_from=1),
        figure("Hosts out of rotation",
               f"count(min by (cluster, service, group, host) (txdirector_host_in_rotation{{{DIRECTORS}}}) == 0) or vector(0)",
               red_from=1),
        figure("Clients unserved",
               'max(service:txdirector_connections_unserved:ratio_rate5m{cluster=~"$cluster"} >= 0) or vector(0)',
               unit="percentunit", red_from=0.01, description="Of the service where it is worst."),
    )
    board.row("Clients")
    board.add(
        12,
        lines("New connections, by service",
              (f"sum by (service) (rate(txdirector_connections_accepted_total{{{DIRECTORS}}}{RATE}))", "{{service}}"), unit="cps"),
        lines("Open connections, by service",
              (f"sum by (service) (txdirector_service_connections{{{DIRECTORS}}})", "{{service}}")),
        lines("Bytes", (f"sum by (direction) (rate(txdirector_relay_bytes_total{{{DIRECTORS}}}{RATE}))", "{{direction}}"),
              unit="Bps"),
        lines("Ends that no client or host asked for",
              (f'sum by (reason) (rate(txdirector_connections_ended_total{{{DIRECTORS}, reason!~"client_closed|host_closed"}}'
               f"{RATE})) > 0 or vector(0)", "{{reason}}"), unit="cps"),
    )
    board.row("Directors")
    process = f'job="txdirector", {DIRECTORS}'
    board.add(
        8,
        lines("CPU", (f"rate(process_cpu_seconds_total{{{process}}}{RATE})", "{{instance}}"), unit="percentunit"),
        lines("Memory", (f"process_resident_memory_bytes{{{process}}}", "{{instance}}"), unit="bytes"),
        lines("Places for clients that are taken",
              (f"txdirector_client_places_taken{{{DIRECTORS}}} / (txdirector_client_places{{{DIRECTORS}}} > 0)", "{{instance}}"),
              unit="percentunit", most=1),
        lines("Store and lead",
              (f"txdirector_store_available{{{DIRECTORS}}}", "{{instance}} store answers"),
              (f"txdirector_store_writable{{{DIRECTORS}}}", "{{instance}} store takes changes"),
              (f"txdirector_leads{{{DIRECTORS}}}", "{{instance}} leads"),
              (f"txdirector_vips_held{{{DIRECTORS}}}", "{{instance}} virtual addresses")),
        lines("Shortages and waits",
              (f"sum by (instance, of) (increase(txdirector_shortages_total{{{DIRECTORS}}}{RATE})) or vector(0)",
               "{{instance}} lacked {{of}}"),
              (f"sum by (instance) (increase(txdirector_accept_pauses_total{{{DIRECTORS}}}{RATE}))",
               "{{instance}} paused accepting")),
        rows("Versions, certificates", f"txdirector_build_info{{{DIRECTORS}}}",
             f"txdirector_certificate_expires_timestamp_seconds{{{DIRECTORS}}} - time()"),
    )
    return board
