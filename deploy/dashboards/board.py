"""What all dashboards have in common, over grafana-foundation-sdk: variables, alerts as annotations, kinds of panels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${source}")
#: The chosen directors; braces are the reader's.
DIRECTORS = 'cluster=~"$cluster", instance=~"$instance"'
#: A rate goes over as many scrapes as Grafana thinks right.
RATE = "[$__rate_interval]"

#: Expression, and what its series are called.
Query = tuple[str, str]


def figure(title: str, expression: str, *, unit: str = "none", red_from: float | None = None, green_from: float | None = None,
           description: str = "") -> stat.Panel:
    """One number: red from a threshold on, or green."""
    steps = [models.Threshold(value=None, color="green" if green_from is None else "red")]
    limit = red_from if green_from is None else green_from
    if limit is not None:
        steps.append(models.Threshold(value=limit, color="red" if green_from is None else "green"))
    panel = (
        stat.Panel().title(title).datasource(SOURCE).unit(unit).height(4)
        .thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .color_mode(kinds.BigValueColorMode.VALUE).graph_mode(kinds.BigValueGraphMode.NONE)
        .with_target(_query(expression, "", "A").instant())
    )
    return panel.description(description) if description else panel


def lines(title: str, *queries: Query, unit: str = "none", most: float | None = None, stacked: bool = False,
          description: str = "") -> timeseries.Panel:
    """Series over time, from 0."""
    mode = kinds.StackingMode.NORMAL if stacked else kinds.StackingMode.NONE
    panel = (
        timeseries.Panel().title(title).datasource(SOURCE).unit(unit).height(8).min(0).line_width(1)
        .fill_opacity(20 if stacked else 0).stacking(common.StackingConfig().mode(mode))
        .legend(common.VizLegendOptions().display_mode(kinds.LegendDisplayMode.LIST).placement(kinds.LegendPlacement.BOTTOM)
                .show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
    )
    for number, (expression, legend) in enumerate(queries):
        panel = panel.with_target(_query(expression, legend, chr(ord("A") + number)))
    if most is not None:
        panel = panel.max(most)
    return panel.description(description) if description else panel


def rows(title: str, *expressions: str, description: str = "") -> table.Panel:
    """A table of what is now, one row for each set of labels."""
    panel = (
        table.Panel().title(title).datasource(SOURCE).height(8).show_header(True)
        .with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(models.DataTransformerConfig(id_val="organize", options={"excludeByName": {"Time": True}}))
    )
    for number, expression in enumerate(expressions):
        panel = panel.with_target(_query(expression, "", chr(ord("A") + number)).instant().format(PromQueryFormat.TABLE))
    return panel.description(description) if description else panel


def quantile(share: float, metric: str, labels: Sequence[str], selector: str) -> str:
    """Of a histogram's buckets."""
    return f"histogram_quantile({share:g}, sum by ({', '.join([*labels, 'le'])}) (rate({metric}_bucket{{{selector}}}{RATE})))"


def variable(name: str, label: str, query: str) -> builders.QueryVariable:
    """One that offers a label's values; all of them at first."""
    return (
        builders.QueryVariable(name).label(label).datasource(SOURCE).query({"query": query, "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
        .include_all(True).multi(True).all_value(".*").current(models.VariableOption(text="All", value="$__all"))
    )


class Board:
    """One dashboard; panels fill rows from left to right."""

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self._panels = 0
        self._builder = (
            builders.Dashboard(f"txdirector: {title}").uid(f"txdirector-{name}").tags(["txdirector"]).editable()
            .timezone("browser").refresh("30s").time("now-1h", "now").version(1)
            .link(builders.DashboardLink("txdirector").type(models.DashboardLinkType.DASHBOARDS).tags(["txdirector"])
                  .as_dropdown(False).include_vars(True).keep_time(True))
            .with_variable(builders.DatasourceVariable("source").label("Prometheus").type("prometheus"))
            .with_variable(variable("cluster", "Cluster", "label_values(txdirector_build_info, cluster)"))
            .with_variable(variable("instance", "Director",
                                    'label_values(txdirector_build_info{cluster=~"$cluster"}, instance)'))
        )

    def offer(self, name: str, label: str, query: str) -> None:
        """One more variable."""
        self._builder.with_variable(variable(name, label, query))

    def row(self, title: str) -> None:
        self._builder.with_row(builders.Row(title).id(self._next()))

    def add(self, width: int, *panels: Any) -> None:
        """Panels beside each other, each *width* of 24 wide."""
        for panel in panels:
            self._builder.with_panel(panel.span(width).id(self._next()))

    def text(self) -> str:
        """The dashboard as Grafana reads it."""
        made = json.loads(json.dumps(self._builder.build(), cls=JSONEncoder))
        for each in made["templating"]["list"]:
            del each["id"]  # the same for all
        made["annotations"] = {"list": [{
            "name": "Alerts", "datasource": {"type": SOURCE.type_val, "uid": SOURCE.uid}, "enable": True, "iconColor": "red",
            "expr": 'ALERTS{alertname=~"Txdirector.*", alertstate="firing", cluster=~"$cluster"}',
            "titleFormat": "{{alertname}}", "textFormat": "{{instance}} {{service}} {{group}} {{host}}",
        }]}  # the library knows no formats of Prometheus' annotations
        return json.dumps(made, indent=1, ensure_ascii=False) + "\n"

    def _next(self) -> int:
        self._panels += 1
        return self._panels


def _query(expression: str, legend: str, ref: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().ref_id(ref).datasource(SOURCE).expr(expression).legend_format(legend)
