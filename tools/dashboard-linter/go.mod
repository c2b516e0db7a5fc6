// Grafana's linter of dashboards, as the tests build it.
module otel-celery-memory/tools/dashboard-linter

go 1.26.3

require github.com/grafana/dashboard-linter v0.2.0

// Repeated from its own go.mod: a replacement holds in the main module only.
replace github.com/hashicorp/memberlist => github.com/grafana/memberlist v0.3.1-0.20251126142931-6f9f62ab6f86

// Could not be fetched; see there.
replace github.com/grafana/grafana/apps/dashboard => ./schema
