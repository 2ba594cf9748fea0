"""Planted: a container that the stack does not know of keeps one of its volumes in use."""

import contextlib
import os

import docker
from docker.errors import APIError

NAME = "cloudless-planted-holder"
MOUNT = "/var/lib/cloudless-agent"

client = docker.from_env()
own = next(one for one in client.containers.list() if one.attrs["Config"]["Hostname"] == os.uname().nodename)
(volume,) = [mount["Name"] for mount in own.attrs["Mounts"] if mount["Destination"] == MOUNT]
with contextlib.suppress(APIError):  # it is there already
    client.containers.create(own.image, name=NAME, volumes={volume: {"bind": MOUNT, "mode": "ro"}})
