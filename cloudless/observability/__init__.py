"""What operators see from outside: logs and metrics."""
