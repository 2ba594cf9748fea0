#!/usr/bin/env bash
# Deploy compose/docker-compose-ha.yml and put it to the test: one true cluster of three, exactly one leader, replication,
# agents; the leader stopped, killed, cut off; each coordinator stopped in turn; no data lost, no task restarted.
#
#   scripts/test-ha-cluster.sh                  build the image, deploy, test, remove everything (some minutes)
#   scripts/test-ha-cluster.sh --keep           leave the stack running
#   scripts/test-ha-cluster.sh --no-build       with the image that is there
#   scripts/test-ha-cluster.sh --private-engine DIR --base-from-archive
#                                               where neither an engine runs nor images can be pulled (as root)
#
# Report: /tmp/cloudless-ha-test-results.txt (and .json, .xml); logs: /tmp/cloudless-ha-test-logs.txt. Anything but 0: a
# check failed. Other options: --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup --no-etcd
exec .venv/bin/python -m tests.cluster.run "$@"
