"""Tests of the probes: on this process, and on frozen /proc and cgroup trees."""
