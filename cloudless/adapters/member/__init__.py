"""Run one etcd member as a child process: its data directory, its command line, its life and its end."""
