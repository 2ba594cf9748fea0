"""Who somebody is, what they may do, and how one comes to be somebody: pure decisions, no cryptography.

`names` says how an identity is written; `access` and `rules` what it may call; `tokens`, `enrolment` and
`rotation` how identities and authorities come and go; `renewal` when a certificate is due. Keys and
signatures are made and checked by `cloudless.adapters.pki`.
"""
