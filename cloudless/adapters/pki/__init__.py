"""Keys, certificates and secrets: all cryptography of cloudless, by the `cryptography` library.

`authority` makes CAs and signs; `request` is a node's side of that; `certificate` reads certificates; `sealing`
encrypts CA keys under the cluster key; `identity_dir` and `vault` keep all of it on disk; `pinning` checks that a
cluster is the one a token names. What is allowed is decided in `cloudless.core.identity`.
"""
