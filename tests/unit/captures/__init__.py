"""Tests of the captures: model, files, directory, profile, comparison."""
