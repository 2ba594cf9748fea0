"""gRPC as cloudless uses it: one way to serve, one way to dial, errors that keep their type on the wire."""
