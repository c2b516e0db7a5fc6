// Loads compose files with the library that `docker compose config` is made of.
module otel-celery-memory/tools/compose-check

go 1.26.0

require github.com/compose-spec/compose-go/v2 v2.16.2
