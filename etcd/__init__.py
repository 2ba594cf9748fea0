"""The etcd binary that each coordinator runs: which build is fit, where to find one, how to call it.

`gate` judges a version, `find` looks for a binary in order (explicit path, PATH, cache, apt of a newer
suite, official release with checksum), `fetch` brings one without root, `flags` writes the command
line that this very version understands, `profiles` names the timing settings.

`python -m etcd` prints what would be chosen, and why the others would not.
"""
