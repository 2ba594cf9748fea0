"""Backup files and the places they lie in: sealing, the container format, directories and buckets."""
