"""Tests against a real Collector, Prometheus and Redis: see conftest.py for what runs where."""
