"""A long run under faults: what is injected, what survives, and whether all is accounted for."""
