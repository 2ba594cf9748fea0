"""The command line: what a person types, turned into calls any coordinator answers.

Only click is imported when it starts; grpc, protobuf, rich and yaml are imported inside the commands that
need them, so that `--help`, `version` and shell completion answer at once.
"""
