"""A whole cluster in one process and in virtual time, with every fault drawn from one seed.

The coordinators and agents that run here are the production code; what is simulated is the world around
them: the network, the store's cluster, clocks, processes that freeze, die and come back, and users. One seed
gives one run, event for event, so that whatever a run finds can be run again.

In a part of the seeds the members of etcd come and go, under the production autopilot (`roster`, `etcd_cluster`,
`member_care`), and in a part everybody has certificates that live for seconds (`trust`, `papers`); `operators` do then
what people do.
"""
