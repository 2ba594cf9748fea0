"""The services of gRPC over HTTP and JSON: one table of paths, everything else derived from the protos."""
