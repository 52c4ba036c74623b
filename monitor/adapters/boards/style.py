"""Boards as Grafana's JSON, by Grafana's own builders: one look, the same colour for the same meaning."""

from __future__ import annotations

import json
import warnings
from typing import Any, Final

with warnings.catch_warnings():
    # The library would rather have the next schema, which no Grafana below 12 reads from files.
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import (
        bargauge,
        common,
        dashboard,
        gauge,
        heatmap,
        prometheus,
        statetimeline,
        table,
        timeseries,
    )
    from grafana_foundation_sdk.builders import stat as stat_builder
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import common as shapes
    from grafana_foundation_sdk.models import dashboard as models
    from grafana_foundation_sdk.models import prometheus as prometheus_models

from monitor.adapters.boards.model import BAD, CALM, GOOD, GREY, ORANGE, OTHER, TEAL, WARN, Ask, Board, Panel, risen

SOURCE: Final = shapes.DataSourceRef(type_val="prometheus", uid="${datasource}")
MEANINGS: Final = (
    (r"/rejected|refused|failed|error|lost|dead_letter|\bshed\b|unknown|unavailable|critical|overdue|dropped/i", BAD),
    (r"/warning|replayed|mismatch|in_flight|duplicate|waiting|bad_request|unauthorized|unconfirmed/i", WARN),
    (r"/accepted|acknowledged|shipped|delivered|resolved|available|exported/i", GOOD),
    (r"/^p50$|^mean$|^buy\b|requested|received/i", CALM),
    (r"/^p95$/", OTHER),
    (r"/^p99$|^sell\b/i", ORANGE),
    (r"/limit|allowed|desired|capacity|objective/i", GREY),
)
"""What a series is called tells its colour, on every board."""
_EVENTS: Final = (
    ("Incidents opened", BAD, risen("tapewatch_incidents_opened_total", "15s", "level") + " > 0",
     "Incident", "level {{level}}"),
    ("Deployments and starts", CALM, "time() - process_start_time_seconds < 15", "Start of {{replica}}", "{{job}}"),
    ("Versions", TEAL, "tapewatch_build_info unless tapewatch_build_info offset 10s", "Version {{version}}",
     "{{replica}}"),
    ("Market phases", GREY, "tapewatch_market_phase == 1 unless tapewatch_market_phase offset 5s == 1",
     "Phase {{phase}}", "from the session calendar"),
    ("Runbook runs", OTHER, risen("tapewatch_runs_total", "15s", "runbook, outcome") + " > 0",
     "Run of {{runbook}}", "{{outcome}}"),
)  # fmt: skip
_LOGS: Final = (
    '/explore?schemaVersion=1&panes={"logs":{"datasource":"tapewatch-logs","queries":[{"refId":"A","query":'
    '"%s"}],"range":{"from":"${__from}","to":"${__to}"}}}'
)
_TRACES: Final = (
    '/explore?schemaVersion=1&panes={"trace":{"datasource":"tapewatch-traces","queries":[{"refId":"A","queryType":'
    '"traceql","query":"${__field.labels.trace_id}"}],"range":{"from":"${__from}","to":"${__to}"}}}'
)
_NARROW: Final = 4


def to_json(board: Board) -> str:
    """Return a board as Grafana's JSON: sorted, two spaces, a newline at the end."""
    built = json.loads(JSONEncoder().encode(_dashboard(board).build()))
    return json.dumps(built, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _dashboard(board: Board) -> dashboard.Dashboard:
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.about)
        .tags(["tapewatch"])
        .timezone("browser")
        .readonly()
        .refresh("5s")
        .time(board.span, "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .links([_between(), *([] if board.name == "overview" else [_home()])])
    )
    for variable in _variables(board):
        made = made.with_variable(variable)
    for event in _EVENTS:
        made = made.annotation(_annotation(*event))
    number, top = 1, 0
    for row in board.rows:
        made = made.with_row(dashboard.Row(row.title).id(number).grid_pos(models.GridPos(h=1, w=24, x=0, y=top)))
        number, top, left, tall = number + 1, top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > 24:  # noqa: PLR2004 - Grafana's grid has 24 columns
                top, left, tall = top + tall, 0, 0
            place = models.GridPos(h=panel.height, w=panel.width, x=left, y=top)
            made = made.with_panel(_panel(panel).id(number).grid_pos(place))
            number, left, tall = number + 1, left + panel.width, max(tall, panel.height)
        top += tall
    return made


def _between() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("Boards").type(models.DashboardLinkType.DASHBOARDS).tags(["tapewatch"])
        .as_dropdown(True).keep_time(True).include_vars(False)  # noqa: FBT003 - the builder's own signature
    )  # fmt: skip


def _home() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("Overview").type(models.DashboardLinkType.LINK).icon("dashboard")
        .url("/d/tapewatch-overview").keep_time(True)  # noqa: FBT003
    )  # fmt: skip


def _variables(board: Board) -> list[Any]:
    jobs = "|".join(board.jobs)
    known = f'label_values(up{{job=~"{jobs}"}}, job)'
    source = (
        dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        .current(models.VariableOption(selected=True, text="Prometheus", value="tapewatch-prometheus"))
    )  # fmt: skip
    job = dashboard.QueryVariable("job").label("Job").query(known).definition(known).all_value(jobs)
    ask = 'label_values(up{job=~"$job"}, replica)'
    replica = dashboard.QueryVariable("replica").label("Replica").query(ask).definition(ask).all_value(".*")
    return [source, *(_several(each) for each in (job, replica))]


def _several(variable: dashboard.QueryVariable) -> dashboard.QueryVariable:
    everything = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    return (
        variable.datasource(SOURCE).multi(True).include_all(True).current(everything)  # noqa: FBT003
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    )  # fmt: skip


def _annotation(name: str, colour: str, expr: str, title: str, text: str) -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery().name(name).datasource(SOURCE).enable(True).icon_color(colour)  # noqa: FBT003
        .expr(expr.replace("{$}", "")).title_format(title).text_format(text).step("5s")
    )  # fmt: skip


def _panel(panel: Panel) -> Any:
    made = _MAKERS[panel.kind](panel)
    made = made.title(panel.title).description(panel.about).unit(panel.unit).datasource(SOURCE)
    made = made.thresholds(_limits(panel)).no_value("none so far")
    if panel.decimals is not None:
        made = made.decimals(panel.decimals)
    if panel.low is not None:
        made = made.min(panel.low)
    if panel.high is not None:
        made = made.max(panel.high)
    if panel.words:
        shown = {value: models.ValueMappingResult(text=text, color=colour) for value, text, colour in panel.words}
        made = made.mappings([models.ValueMap(options=shown)])
    for name, ask in zip("ABCDEFGH", panel.asks, strict=False):
        made = made.with_target(_target(panel, ask, name))
    return made.data_links(_links(panel))


def _links(panel: Panel) -> list[dashboard.DashboardLink]:
    service = "${__field.labels.job:raw}"
    links = [("Logs of this service", _LOGS % f"service.name:{service}")]
    if any(ask.exemplar for ask in panel.asks):
        trace = "${__field.labels.trace_id}"
        links = [("Trace of this order", _TRACES), ("Logs of this order", _LOGS % f"trace.id:{trace}")]
    elif not any(word in ask.expr for ask in panel.asks for word in ("job", "$replica")):
        links = [("Errors in the logs of this time", _LOGS % "log.level:error")]
    return [dashboard.DashboardLink(title).type(models.DashboardLinkType.LINK).url(url) for title, url in links]


def _target(panel: Panel, ask: Ask, name: str) -> prometheus.Dataquery:
    made = prometheus.Dataquery().datasource(SOURCE).expr(ask.expr).ref_id(name).legend_format(ask.legend or "__auto")
    if panel.kind == "table":
        return made.instant().format(prometheus_models.PromQueryFormat.TABLE)
    if panel.kind == "bargauge":
        return made.instant()
    if panel.kind == "heatmap":
        return made.range().format(prometheus_models.PromQueryFormat.HEATMAP)
    made = made.range()
    return made.exemplar(True) if ask.exemplar else made  # noqa: FBT003


def _limits(panel: Panel) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value=value, color=colour) for value, colour in panel.steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _graph(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel().line_width(1.5).fill_opacity(30 if panel.stacked else 8).span_nulls(False)  # noqa: FBT003
        .show_points(shapes.VisibilityMode.NEVER)
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI)
                 .sort(shapes.SortOrder.DESCENDING))
        .legend(common.VizLegendOptions().show_legend(True).placement(shapes.LegendPlacement.BOTTOM)  # noqa: FBT003
                .display_mode(shapes.LegendDisplayMode.TABLE if panel.width > 8 else shapes.LegendDisplayMode.LIST)  # noqa: PLR2004
                .calcs(["lastNotNull", "max"] if panel.width > 8 else []))  # noqa: PLR2004
    )  # fmt: skip
    if panel.stacked:
        made = made.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
    if len(panel.steps) > 1:
        style = common.GraphThresholdsStyleConfig().mode(shapes.GraphThresholdsStyleMode.DASHED)
        made = made.thresholds_style(style)
    for pattern, colour in MEANINGS:
        fixed = {"fixedColor": colour, "mode": "fixed"}
        made = made.override_by_regexp(pattern, [models.DynamicConfigValue(id_val="color", value=fixed)])
    return made


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)  # noqa: FBT003


def _by_limits() -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)


def _stat(panel: Panel) -> stat_builder.Panel:
    graph = shapes.BigValueGraphMode.AREA if panel.width >= _NARROW else shapes.BigValueGraphMode.NONE
    return (
        stat_builder.Panel().reduce_options(_last()).graph_mode(graph).color_scheme(_by_limits())
        .color_mode(shapes.BigValueColorMode.VALUE)
    )  # fmt: skip


def _gauge(_: Panel) -> gauge.Panel:
    return gauge.Panel().reduce_options(_last()).show_threshold_markers(True).color_scheme(_by_limits())  # noqa: FBT003


def _bars(_: Panel) -> bargauge.Panel:
    return (
        bargauge.Panel().reduce_options(_last()).orientation(shapes.VizOrientation.HORIZONTAL)
        .display_mode(shapes.BarGaugeDisplayMode.BASIC).color_scheme(_by_limits()).show_unfilled(True)  # noqa: FBT003
    )  # fmt: skip


def _table(_: Panel) -> table.Panel:
    hidden = [models.DynamicConfigValue(id_val="custom.hidden", value=True)]
    return (
        table.Panel().show_header(True).color_scheme(_by_limits())  # noqa: FBT003
        .override_by_regexp("/^(Time|__name__|instance)$/", hidden)
        .override_by_name("Value", [models.DynamicConfigValue(id_val="custom.cellOptions",
                                                              value={"type": "color-text"})])
    )  # fmt: skip


def _heat(panel: Panel) -> heatmap.Panel:
    return heatmap.Panel().calculate(False).y_axis(_axis(panel.unit)).cell_gap(1)  # noqa: FBT003


def _axis(unit: str) -> Any:
    from grafana_foundation_sdk.builders.heatmap import YAxisConfig

    return YAxisConfig().unit(unit)


def _states(_: Panel) -> statetimeline.Panel:
    return (
        statetimeline.Panel().merge_values(True).show_value(shapes.VisibilityMode.AUTO)  # noqa: FBT003
        .color_scheme(_by_limits()).fill_opacity(80)
    )  # fmt: skip


_MAKERS: Final[dict[str, Any]] = {
    "timeseries": _graph, "stat": _stat, "gauge": _gauge, "bargauge": _bars, "table": _table, "heatmap": _heat,
    "state-timeline": _states,
}  # fmt: skip
