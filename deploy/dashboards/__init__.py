"""Grafana's dashboards as code: what `deploy/grafana/dashboards` holds is made from here by ``make dashboards``."""
