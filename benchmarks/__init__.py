"""Overhead, side by side in one run: ratios, never pass or fail."""
