// Prometheus and promtool, as the tests of the stack build them.
module otel-celery-memory/tools/prometheus

go 1.26.0

require github.com/prometheus/prometheus v0.315.0

// Repeated from Prometheus's own go.mod: a replacement holds in the main module only.
replace cloud.google.com/go => cloud.google.com/go v0.123.0

exclude (
	github.com/grpc-ecosystem/grpc-gateway v1.14.7
	github.com/linode/linodego v1.0.0
	google.golang.org/api v0.30.0
)
