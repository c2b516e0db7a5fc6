"""What `make package` has built: the wheel alone, in an environment with nothing else."""
