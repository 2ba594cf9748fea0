"""Where coordinators are: what a person may write, what the cluster has said, and what is made of the answers."""
