// Jaeger, as the tests of the stack build it.
module otel-celery-memory/tools/jaeger

go 1.26.0

require github.com/jaegertracing/jaeger v1.76.0
