// Stands in for the module of Grafana that declares dashboards of schema v2.
module github.com/grafana/grafana/apps/dashboard

go 1.26.0
