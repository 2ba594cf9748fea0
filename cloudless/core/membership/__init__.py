"""Who belongs to the etcd cluster, and the one next step towards who should."""
