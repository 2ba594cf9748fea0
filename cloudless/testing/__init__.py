"""Fakes that pass the same contract suites as the real things, and builders for tests."""
