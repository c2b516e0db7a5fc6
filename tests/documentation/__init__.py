"""Whether what the documentation shows is so: blocks are run, parsed or compared with the code."""
