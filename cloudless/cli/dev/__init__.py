"""A whole cluster on one machine: three coordinators, three agents, real processes, loopback only.

`layout` says what there is, `table` which process is which, `up` and `down` begin and end it, `drill` breaks it
on purpose and measures how it recovers.
"""
