"""One module per group of commands; each says what it prints and leaves the how to `cli.output`."""
