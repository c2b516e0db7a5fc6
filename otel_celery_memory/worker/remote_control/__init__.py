"""What people ask of a worker."""
