"""The shop of the tutorial "Find a leak": two tasks, of which one leaks."""
