"""Work on backup files and data directories without a running cluster: prove, restore, rebuild.

What the command line does on a host and the coordinator does when it verifies its own backups is the same, so it
stands here, above the adapters it puts together and below both programs. Everything blocks for as long as disks take;
nothing here talks to other hosts.
"""
