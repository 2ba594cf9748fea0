"""HTTP for people, probes and scrapers."""
