"""Turns a dashboard into Grafana's JSON, by grafana-foundation-sdk. Decides looks, not content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from grafana_foundation_sdk.builders import common as shapes
from grafana_foundation_sdk.builders import (
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.panels import Board, Look, Panel, Query, Steps, Variable

TAG: Final = "moeops"
_HEIGHTS: Final = {Look.NUMBER: 4, Look.TABLE: 9, Look.MATRIX: 12}
_SOURCE: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
# What is left of a series' labels in a table is what the query groups by.
_HIDDEN: Final = {"Time": True}

_Drawn = timeseries.Panel | stat.Panel | statetimeline.Panel | table.Panel


def draw(board: Board) -> str:
    """Return the JSON of a dashboard, with sorted keys."""
    made = (
        dashboard.Dashboard(f"MoE / {board.title}")
        .uid(f"moeops-{board.name}")
        .description(board.description)
        .tags([TAG])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .link(_links())
        .with_variable(
            dashboard.DatasourceVariable("datasource").type("prometheus").label("Data source")
        )
    )
    for variable in board.variables:
        made = made.with_variable(_variable(variable))
    for row in board.rows:
        made = made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made = made.with_panel(_panel(panel))
    encoder = JSONEncoder(sort_keys=True, indent=1, ensure_ascii=False)
    return f"{encoder.encode(made.build())}\n"


def _links() -> dashboard.DashboardLink:
    """Return the way to the other dashboards, with time and variables as they are."""
    return (
        dashboard.DashboardLink("MoE dashboards")
        .type(DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(False)
        .include_vars(True)
        .keep_time(True)
        .placement("")  # beside the variables, not in a menu
    )


def _variable(variable: Variable) -> dashboard.QueryVariable:
    made = (
        dashboard.QueryVariable(variable.name)
        .label(variable.name.capitalize())
        .query(variable.query)
        .datasource(_SOURCE)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
    )
    if not variable.several:
        return made
    everything = VariableOption(selected=True, text="All", value="$__all")
    return made.multi(True).include_all(True).all_value(".+").current(everything)


def _panel(panel: Panel) -> _Drawn:
    made = (
        _LOOKS[panel.look]()
        .title(panel.title)
        .description(f"{panel.description} {_when_empty(panel)}".strip())
        .datasource(_SOURCE)
        .unit(panel.unit)
        .thresholds(_thresholds(panel.steps))
        .span(panel.width)
        .height(_HEIGHTS.get(panel.look, 8))
    )
    for query, name in zip(panel.queries, "ABCDEFGH", strict=False):
        made = made.with_target(_target(query, name, panel.look))
    return _tabled(made, panel) if isinstance(made, table.Panel) else made


def _when_empty(panel: Panel) -> str:
    return f"Empty {panel.empty}." if panel.empty else ""


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    """The first step has no value: it holds from minus infinity on."""
    base = steps[0][1] if steps and steps[0][0] == 0 else "green"
    rest = [Threshold(value, color) for value, color in steps if value > 0]
    config = dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE)
    return config.steps([Threshold(None, base), *rest])


def _target(query: Query, name: str, look: Look) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(name)
    made = made.datasource(_SOURCE)
    if look in (Look.TABLE, Look.MATRIX):
        return made.format(PromQueryFormat.TABLE).instant()
    return made.instant() if look is Look.NUMBER else made.range()


def _lines() -> timeseries.Panel:
    style = shapes.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
    legend = shapes.VizLegendOptions().show_legend(True)
    legend = legend.display_mode(common.LegendDisplayMode.LIST).calcs([])
    legend = legend.placement(common.LegendPlacement.BOTTOM)
    made = timeseries.Panel().min(0).fill_opacity(8).thresholds_style(style).legend(legend)
    return made.tooltip(shapes.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))


def _number() -> stat.Panel:
    made = stat.Panel().graph_mode(common.BigValueGraphMode.NONE)
    made = made.color_mode(common.BigValueColorMode.BACKGROUND)
    return made.reduce_options(shapes.ReduceDataOptions().calcs(["lastNotNull"]))


def _states() -> statetimeline.Panel:
    texts = {"0": ValueMappingResult(text="no"), "1": ValueMappingResult(text="yes")}
    made = statetimeline.Panel().merge_values(True).mappings([ValueMap(texts)])
    return made.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))


_LOOKS: Final[Mapping[Look, Callable[[], _Drawn]]] = {
    Look.LINES: _lines,
    Look.NUMBER: _number,
    Look.STATES: _states,
    Look.TABLE: table.Panel,
    Look.MATRIX: table.Panel,
}


def _tabled(made: table.Panel, panel: Panel) -> table.Panel:
    colored = common.TableColoredBackgroundCellOptions(
        mode=common.TableCellBackgroundDisplayMode.BASIC
    )
    if panel.look is Look.MATRIX:
        made = made.cell_options(colored)
        options = {"columnField": "expert", "rowField": "layer", "valueField": "Value"}
        return made.with_transformation(
            DataTransformerConfig(id_val="groupingToMatrix", options=options)
        )
    names = {
        _value_of(panel, name): q.legend for q, name in zip(panel.queries, "ABCDEFGH", strict=False)
    }
    for column in names.values() if panel.steps else ():
        made = made.override_by_name(
            column, [DynamicConfigValue(id_val="custom.cellOptions", value=colored)]
        )
    made = made.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    tidy = {"excludeByName": _HIDDEN, "renameByName": names}
    return made.with_transformation(DataTransformerConfig(id_val="organize", options=tidy))


def _value_of(panel: Panel, name: str) -> str:
    """Return what Grafana calls a query's values: without its letter where there is one query."""
    return "Value" if len(panel.queries) == 1 else f"Value #{name}"
