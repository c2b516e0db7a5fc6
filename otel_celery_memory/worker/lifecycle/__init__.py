"""When things begin and end in a worker."""
