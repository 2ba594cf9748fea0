"""The wire: generated messages under `v1`, and the codec between them and the core's values."""
