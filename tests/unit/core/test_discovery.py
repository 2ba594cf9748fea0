"""Seeds as people write them, endpoints in the order of trying, what is learned, and who is behind an address."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from cloudless.core.discovery.addresses import join_address, reachable_at, split_address
from cloudless.core.discovery.answers import Voice, sort_answers
from cloudless.core.discovery.endpoints import Endpoint, merge_endpoints, order_endpoints
from cloudless.core.discovery.learned import (
    AGE_MAX_MS,
    CONFIRM_EVERY_MS,
    KNOWN_MAX,
    Known,
    bound,
    find_retired,
    follow,
)
from cloudless.core.discovery.seeds import (
    SEEDS_MAX,
    BadSeed,
    Seed,
    SeedKind,
    parse_dns_servers,
    parse_seed,
    parse_seeds,
)

ADDRESS, NAME, DNS, SRV = SeedKind.ADDRESS, SeedKind.NAME, SeedKind.DNS, SeedKind.SRV


@pytest.mark.parametrize(
    ("bound", "advertised", "reachable"),
    [
        ("0.0.0.0:8081", "10.0.0.1:8080", "10.0.0.1:8081"),
        ("[::]:8081", "[fd00::5]:8080", "[fd00::5]:8081"),
        (":8081", "c1.example:8080", "c1.example:8081"),
        ("127.0.0.1:8081", "10.0.0.1:8080", "127.0.0.1:8081"),
        ("10.0.0.2:8081", "10.0.0.1:8080", "10.0.0.2:8081"),
    ],
)
def test_what_listens_everywhere_is_reached_where_the_api_is(bound: str, advertised: str, reachable: str) -> None:
    assert reachable_at(bound, advertised) == reachable


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.5:8080", "10.0.0.5", 8080),
        ("[fd00::5]:8080", "fd00::5", 8080),
        ("[FD00:0:0:0:0:0:0:5]:1", "fd00::5", 1),
        ("[fe80::1%eth0]:8080", "fe80::1%eth0", 8080),
        (":8080", "", 8080),
        ("[::]:0", "::", 0),
        ("node-1.example.org:80", "node-1.example.org", 80),
        ("my_host:80", "my_host", 80),
    ],
)
def test_an_address_is_split_into_host_and_port(text: str, host: str, port: int) -> None:
    assert split_address(text) == (host, port)
    assert split_address(join_address(host, port)) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", "host:x", "host:65536", "host:-1", "fd00::5:8080", "::1", "[10.0.0.5]:80", "[fd00::5]",
     "fd00::5]:80", "a b:80", "http://a:80", "256.0.0.1:80", "1.2.3:80", "-a:80", "a..b:80", "host:\u0668"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        split_address(text)


def test_an_ipv6_address_without_brackets_is_told_to_take_some() -> None:
    with pytest.raises(BadSeed, match=r"IPv6 address in brackets, such as \[fd00::5\]:8080"):
        parse_seed("fd00::5:8080")


@pytest.mark.parametrize(
    ("text", "seed"),
    [
        ("10.0.0.5", Seed("10.0.0.5", 8080, ADDRESS)),
        ("10.0.0.5:9", Seed("10.0.0.5", 9, ADDRESS)),
        ("[fd00::5]", Seed("fd00::5", 8080, ADDRESS)),
        ("[fd00::5]:9", Seed("fd00::5", 9, ADDRESS)),
        ("node-1", Seed("node-1", 8080, NAME)),
        ("node-1:9", Seed("node-1", 9, NAME)),
        ("dns+cloudless.example.org", Seed("cloudless.example.org", 8080, DNS)),
        ("DNS+Cloudless.example.org.:9", Seed("cloudless.example.org.", 9, DNS)),
        ("srv+_cloudless._tcp.example.org", Seed("_cloudless._tcp.example.org", 0, SRV)),
    ],
)
def test_a_seed_is_what_it_says(text: str, seed: Seed) -> None:
    assert parse_seed(text) == seed
    assert parse_seed(str(seed)) == seed


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("srv+cloudless.example.org", "such as srv+_cloudless._tcp.example.org"),
        ("srv+_cloudless._tcp", "such as srv+_cloudless._tcp.example.org"),
        ("srv+_cloudless._tcp.example.org:8080", "no port after srv"),
        ("srv+_cloudless._tcp.a b", "a domain after"),
        ("dns+10.0.0.5:8080", "an address is written as it is: 10.0.0.5:8080"),
        ("consul+cloudless:8080", "consul+ is not known"),
        ("10.0.0.5:0", "a port from 1 to 65535"),
        (":8080", "must name a host"),
        ("dns+", "must name a host"),
        ("host:port", "must be host:port"),
    ],
)
def test_a_faulty_seed_is_refused_with_the_cure(text: str, cure: str) -> None:
    with pytest.raises(BadSeed) as caught:
        parse_seed(text)
    assert cure in str(caught.value)


def test_a_list_names_the_faulty_entry_and_keeps_each_seed_once() -> None:
    with pytest.raises(BadSeed, match=r"^entry 2 \(srv\+x\) must"):
        parse_seeds("a:1, srv+x")
    assert [str(seed) for seed in parse_seeds("b, a:1,,b:8080")] == ["b:8080", "a:1"]
    with pytest.raises(BadSeed, match="at most"):
        parse_seeds(",".join(f"h{n}" for n in range(SEEDS_MAX + 1)))


def test_dns_servers_are_addresses_with_port_53_unless_said() -> None:
    assert parse_dns_servers("10.0.0.2, [fd00::2]:5353") == (("10.0.0.2", 53), ("fd00::2", 5353))
    for wrong in ("dns.example.org", "", "10.0.0.2,", "10.0.0.2:0"):
        with pytest.raises(BadSeed):
            parse_dns_servers(wrong)


# --- in which order ---


def test_endpoints_are_tried_by_priority_and_among_equals_by_weight() -> None:
    random = Random(7)
    heavy, light, zero, last = (
        Endpoint("heavy", 1, 90), Endpoint("light", 1, 10), Endpoint("zero", 1, 0), Endpoint("last", 2, 65535),
    )  # fmt: skip
    firsts: Counter[str] = Counter()
    for _ in range(2000):
        order = order_endpoints([last, zero, light, heavy], random.random)
        assert order[-1] == last
        firsts[order[0].address] += 1
    assert 1700 < firsts["heavy"] < 1880
    assert 120 < firsts["light"] < 300
    assert firsts["zero"] < 10


def test_equal_endpoints_come_first_equally_often() -> None:
    random, four = Random(7), [Endpoint(name) for name in "abcd"]
    firsts = Counter(order_endpoints(four, random.random)[0].address for _ in range(4000))
    assert all(900 < firsts[name] < 1100 for name in "abcd")


def test_learned_addresses_count_among_the_best_of_the_seeds() -> None:
    seeds = [Endpoint("a", 20, 5), Endpoint("b", 10, 5), Endpoint("a", 30)]
    assert merge_endpoints(seeds, ["c", "b"]) == [Endpoint("a", 20, 5), Endpoint("b", 10, 5), Endpoint("c", 10)]
    assert merge_endpoints([], ["c"]) == [Endpoint("c")]


# --- what is learned ---

NOW = 1_700_000_000_000
ONE, TWO = Known("c1", "a:1", NOW), Known("c2", "b:1", NOW)


def test_the_address_of_one_that_is_down_is_kept_and_one_no_longer_named_is_forgotten() -> None:
    assert follow((ONE, TWO), {"c1": "a:1", "c2": ""}, NOW) == (ONE, TWO)
    assert follow((ONE, TWO), {"c1": "a:1"}, NOW) == (ONE,)
    assert follow((ONE,), {"c1": "a:1", "c3": ""}, NOW) == (ONE,)


def test_an_address_that_moved_replaces_the_old_one() -> None:
    assert follow((ONE, TWO), {"c1": "z:1", "c2": "b:1"}, NOW + 5) == (Known("c1", "z:1", NOW + 5), TWO)


def test_an_empty_list_teaches_nothing() -> None:
    assert follow((TWO, ONE), {}, NOW) == (ONE, TWO)


def test_what_stays_the_same_is_confirmed_now_and_then_only() -> None:
    assert follow((ONE,), {"c1": "a:1"}, NOW + CONFIRM_EVERY_MS - 1) == (ONE,)
    assert follow((ONE,), {"c1": ""}, NOW + CONFIRM_EVERY_MS) == (Known("c1", "a:1", NOW + CONFIRM_EVERY_MS),)
    assert follow((ONE,), {"c1": "a:1"}, NOW - 1) == (Known("c1", "a:1", NOW - 1),), "the clock was put back"


def test_what_is_known_is_bounded_in_age_and_number() -> None:
    assert bound((ONE, TWO), NOW + AGE_MAX_MS) == (ONE, TWO)
    assert bound((ONE, Known("c2", "b:1", NOW + 1)), NOW + AGE_MAX_MS + 1) == (Known("c2", "b:1", NOW + 1),)
    many = tuple(Known(f"c{n:03}", f"h{n}:1", NOW + n) for n in range(KNOWN_MAX + 5))
    assert bound(many, NOW) == many[5:]


def test_the_address_of_a_removed_coordinator_is_retired_unless_another_has_it() -> None:
    assert find_retired((ONE, TWO), (ONE,)) == {"b:1"}
    assert find_retired((ONE, TWO), (ONE, Known("c3", "b:1"))) == frozenset()
    assert find_retired((ONE,), (Known("c1", "z:1"),)) == frozenset(), "moved, not removed: others may still lead there"


# --- who answers ---


def test_this_very_process_behind_another_name_is_told_by_its_instance() -> None:
    found = sort_answers("i1", "", {"lb:1": Voice("c1", "i1"), "b:1": Voice("c1", "i2"), "c:1": Voice("c3")})
    assert (found.own, found.usable, found.refusal) == (("lb:1",), ("b:1", "c:1"), "")


def test_two_clusters_behind_one_list_are_refused_by_a_newcomer() -> None:
    voices = {"a:1": Voice("c1", "i1", "x"), "b:1": Voice("c2", "i2", "y"), "c:1": Voice("c3", "i3")}
    found = sort_answers("i9", "", voices)
    assert found.refusal == "the addresses lead to different clusters: x at a:1; y at b:1"
    assert not found.usable


def test_a_member_of_one_of_them_goes_on_with_its_own() -> None:
    voices = {"a:1": Voice("c1", "i1", "x"), "b:1": Voice("c2", "i2", "y"), "c:1": Voice("c3", "i3")}
    found = sort_answers("i9", "x", voices)
    assert (found.usable, dict(found.foreign), found.refusal) == (("a:1", "c:1"), {"y": ("b:1",)}, "")


def test_a_member_that_finds_only_another_cluster_is_refused() -> None:
    found = sort_answers("i9", "z", {"a:1": Voice("c1", "i1", "x"), "c:1": Voice("c3", "i3")})
    assert found.refusal == "this node belongs to cluster z, the addresses lead to another: x at a:1"
