"""The coordinator's runtime: it feeds the core with what happens and does what the core decides."""
