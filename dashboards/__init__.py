"""The dashboards for Grafana, written here and generated into the chart.

`queries` makes PromQL of the metrics that the programs describe, `panels` says what a panel is,
`boards` says which there are, `drawing` turns them into Grafana's JSON.
"""
