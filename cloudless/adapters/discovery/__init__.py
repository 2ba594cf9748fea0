"""Names turned into addresses: through DNS itself, or as this machine resolves them."""
