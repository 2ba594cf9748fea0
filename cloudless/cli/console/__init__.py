"""`cloudless console`: a page to look at the cluster with, served on this machine under the person's own identity."""
