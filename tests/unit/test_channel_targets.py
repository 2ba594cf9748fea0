"""What gRPC is told to connect to."""

from __future__ import annotations

import pytest

from cloudless.adapters.grpc.channel import target_of


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("10.0.0.5:8080", "ipv4:10.0.0.5:8080"),
        ("[fd00::5]:8080", "ipv6:[fd00::5]:8080"),
        ("coordinator-1:8080", "coordinator-1:8080"),
        ("coordinator-1.example.com:8080", "coordinator-1.example.com:8080"),
        (":8080", ":8080"),
        ("unix:/run/cloudless.sock", "unix:/run/cloudless.sock"),
        ("no address", "no address"),
    ],
)
def test_an_ip_address_is_never_looked_up_as_a_name(address: str, target: str) -> None:
    assert target_of(address) == target
