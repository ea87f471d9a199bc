"""One service, its groups and hosts."""

from __future__ import annotations

from deploy.dashboards.board import DIRECTORS, RATE, Board, figure, lines, quantile, rows

SERVICE = f'{DIRECTORS}, service=~"$service"'
GROUP = f'{SERVICE}, group=~"$group"'
HOST = f'{GROUP}, host=~"$host"'
#: Labels of a host, and its name in a legend.
OF_HOST = "service, group, host"
NAME = "{{service}}/{{group}}/{{host}}"


def service() -> Board:
    board = Board("service", "service and host")
    board.offer("service", "Service", 'label_values(txdirector_service_connections{cluster=~"$cluster"}, service)')
    board.offer("group", "Group", 'label_values(txdirector_group_enabled{cluster=~"$cluster", service=~"$service"}, group)')
    board.offer("host", "Host",
                'label_values(txdirector_host_weight{cluster=~"$cluster", service=~"$service", group=~"$group"}, host)')
    board.add(
        6,
        figure("Open connections", f"sum(txdirector_service_connections{{{SERVICE}}})"),
        figure("Queued clients", f"sum(txdirector_service_queued_clients{{{SERVICE}}})", red_from=1),
        figure("Hosts in rotation",
               f"sum(min by (cluster, {OF_HOST}) (txdirector_host_in_rotation{{{HOST}}}))", green_from=1),
        figure("Groups that fail open", f"sum(txdirector_group_failing_open{{{SERVICE}}})", red_from=1),
    )
    board.row("Service")
    duration = "txdirector_connection_duration_seconds"
    board.add(
        8,
        lines("New connections",
              (f"sum by (service) (rate(txdirector_connections_accepted_total{{{SERVICE}}}{RATE}))", "{{service}}"), unit="cps"),
        lines("Ends, by reason",
              (f"sum by (service, reason) (rate(txdirector_connections_ended_total{{{SERVICE}}}{RATE})) > 0",
               "{{service}} {{reason}}"), unit="cps", stacked=True),
        lines("How long connections last",
              (quantile(0.5, duration, ["service"], SERVICE), "{{service}} median"),
              (quantile(0.99, duration, ["service"], SERVICE), "{{service}} 99 %"), unit="s"),
        lines("Wait in the queue",
              (quantile(0.99, "txdirector_queue_wait_seconds", ["service"], SERVICE), "{{service}} 99 %"), unit="s"),
        lines("Retries on another host",
              (f"sum by (service) (rate(txdirector_connection_retries_total{{{SERVICE}}}{RATE}))", "{{service}}"), unit="cps"),
        lines("Share of the groups",
              (f"max by (service, group) (txdirector_group_share_ratio{{{GROUP}}})", "{{service}}/{{group}}"),
              unit="percentunit", most=1),
    )
    board.row("Hosts")
    board.add(
        8,
        lines("New connections", (f"sum by ({OF_HOST}) (rate(txdirector_host_connections_total{{{HOST}}}{RATE}))", NAME),
              unit="cps"),
        lines("Open connections", (f"sum by ({OF_HOST}) (txdirector_host_in_flight_connections{{{HOST}}})", NAME)),
        lines("Weight", (f"avg by ({OF_HOST}) (txdirector_host_weight{{{HOST}}})", NAME)),
        lines("Time to connect",
              (quantile(0.5, "txdirector_host_connect_seconds", [OF_HOST], HOST), f"{NAME} median"),
              (quantile(0.99, "txdirector_host_connect_seconds", [OF_HOST], HOST), f"{NAME} 99 %"), unit="s"),
        lines("How long connections last, mean",
              (f"sum by ({OF_HOST}) (rate(txdirector_host_connection_duration_seconds_sum{{{HOST}}}{RATE})) / "
               f"sum by ({OF_HOST}) (rate(txdirector_host_connection_duration_seconds_count{{{HOST}}}{RATE}))", NAME), unit="s"),
        lines("Turnaround",
              (f"sum by ({OF_HOST}) (rate(txdirector_host_turnaround_seconds_total{{{HOST}}}{RATE})) / "
               f"sum by ({OF_HOST}) (rate(txdirector_host_turnarounds_total{{{HOST}}}{RATE}))", NAME), unit="s",
              description="First byte of the host after bytes of its client."),
        lines("Connects and probes that failed",
              (f"sum by ({OF_HOST}) (rate(txdirector_host_connect_failures_total{{{HOST}}}{RATE}))", f"{NAME} connects"),
              (f'sum by ({OF_HOST}) (rate(txdirector_host_probes_total{{{HOST}, result="failure"}}{RATE}))', f"{NAME} probes"),
              unit="cps"),
        lines("In rotation, of the directors", (f"avg by ({OF_HOST}) (txdirector_host_in_rotation{{{HOST}}})", NAME),
              unit="percentunit", most=1),
        lines("Changes of state",
              (f"sum by ({OF_HOST}, to) (increase(txdirector_host_transitions_total{{{HOST}}}{RATE}))", f"{NAME} {{{{to}}}}")),
    )
    board.add(
        12,
        lines("Bytes", (f"sum by ({OF_HOST}, direction) (rate(txdirector_host_relayed_bytes_total{{{HOST}}}{RATE}))",
                        f"{NAME} {{{{direction}}}}"), unit="Bps", description="Of connections that have ended."),
        rows("State", f"max by ({OF_HOST}, state) (txdirector_host_state{{{HOST}}} == 1)",
             f"max by ({OF_HOST}, state) (txdirector_host_admin_state{{{HOST}}} == 1)"),
    )
    return board
