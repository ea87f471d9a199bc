"""What agents are connected, and what they report."""

from __future__ import annotations

from deploy.dashboards.board import DIRECTORS, RATE, Board, figure, lines, rows
from deploy.dashboards.service import HOST, NAME, OF_HOST


def agents() -> Board:
    board = Board("agents", "agents")
    board.offer("service", "Service", 'label_values(txdirector_service_connections{cluster=~"$cluster"}, service)')
    board.offer("group", "Group", 'label_values(txdirector_group_enabled{cluster=~"$cluster", service=~"$service"}, group)')
    board.offer("host", "Host",
                'label_values(txdirector_host_weight{cluster=~"$cluster", service=~"$service", group=~"$group"}, host)')
    silent = f"max by (cluster, {OF_HOST}) (txdirector_host_agent_connected{{{HOST}}}) == 0"
    board.add(
        6,
        figure("Agents connected, at the director with most", f"max(sum by (instance) (txdirector_agents{{{DIRECTORS}}}))"),
        figure("Hosts without an agent", f"count({silent}) or vector(0)"),
        figure("Longest silence", f"max(min by (cluster, {OF_HOST}) (txdirector_host_heartbeat_age_seconds{{{HOST}}}))",
               unit="s", red_from=5, description="Of a host whose agent has reported, as the director sees it that heard last."),
        figure("Messages rejected", f"sum(increase(txdirector_agent_messages_rejected_total{{{DIRECTORS}}}{RATE})) or vector(0)",
               red_from=1),
    )
    board.row("Agents")
    board.add(
        8,
        lines("Connected, by release", (f"max by (release) (txdirector_agents{{{DIRECTORS}}})", "{{release}}"), stacked=True),
        lines("Connected, by director", (f"sum by (instance) (txdirector_agents{{{DIRECTORS}}})", "{{instance}}")),
        lines("Reports", (f"rate(txdirector_agent_reports_total{{{DIRECTORS}}}{RATE})", "{{instance}}"), unit="ops"),
        lines("Messages rejected, by reason",
              (f"sum by (instance, reason) (rate(txdirector_agent_messages_rejected_total{{{DIRECTORS}}}{RATE})) or vector(0)",
               "{{instance}} {{reason}}"), unit="ops"),
        lines("Since the last heartbeat", (f"min by ({OF_HOST}) (txdirector_host_heartbeat_age_seconds{{{HOST}}})", NAME), unit="s"),
        rows("Hosts without an agent", f"({silent}) or vector(0)"),
    )
    board.row("Load, as reported")
    reported = "max by (" + OF_HOST + ") (txdirector_host_load_{}{{" + HOST + "}})"
    board.add(
        8,
        lines("Utilisation", (reported.format("utilisation_ratio"), NAME), unit="percentunit"),
        lines("Being served", (reported.format("in_flight"), NAME)),
        lines("Completions", (reported.format("rate_per_second"), NAME), unit="ops"),
        lines("Latency", (reported.format("latency_seconds"), NAME), unit="s"),
        lines("Failed", (reported.format("errors_ratio"), NAME), unit="percentunit", most=1),
        lines("Weight by what is reported",
              (f'avg by ({OF_HOST}) (txdirector_host_weight_factor{{{HOST}, factor="capacity"}})', f"{NAME} capacity"),
              (f'avg by ({OF_HOST}) (txdirector_host_weight_factor{{{HOST}, factor="agent"}})', f"{NAME} stated")),
    )
    return board
