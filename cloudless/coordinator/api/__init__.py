"""The services of a coordinator: validate, read or commit, answer. Any coordinator takes any request."""
