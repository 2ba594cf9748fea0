"""This machine: its disks, its memory, its limits, its clock."""
