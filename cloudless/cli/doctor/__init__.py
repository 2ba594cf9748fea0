"""`cluster doctor` and its like: gather facts from whatever answers, and show what they come to."""
