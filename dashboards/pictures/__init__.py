"""Pictures of the dashboards, drawn from their own JSON and what a Prometheus answers.

`sheets` reads a dashboard, `choices` puts values in the place of its variables, `prometheus` asks,
`lines`, `numbers` and `tables` draw a panel each, `page` puts them where the grid says. It shows
what a dashboard is about without a Grafana; looks are close to Grafana's, not the same.
"""
