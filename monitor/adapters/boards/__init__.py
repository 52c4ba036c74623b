"""Grafana's dashboards: built from short specifications, held to rules, run on live data, drawn as pictures."""
