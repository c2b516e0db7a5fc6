// VictoriaLogs, as the tests of the stack build it.
module otel-celery-memory/tools/victorialogs

go 1.26.5

require github.com/VictoriaMetrics/VictoriaLogs v1.52.1
