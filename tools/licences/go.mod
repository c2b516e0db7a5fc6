// Says which licences the files of Go modules have, by the texts that pkg.go.dev knows them by.
module otel-celery-memory/tools/licences

go 1.26.0

require github.com/google/licensecheck v0.3.1
