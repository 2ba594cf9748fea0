"""Whatever is written where seeds are expected: it is read the same again, or refused in words."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from cloudless.core.discovery.addresses import join_address, split_address
from cloudless.core.discovery.learned import KNOWN_MAX, Known, follow
from cloudless.core.discovery.seeds import BadSeed, Seed, SeedKind, parse_seed, parse_seeds

label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
name = st.builds(lambda parts, last: ".".join((*parts, last)), st.lists(label, max_size=3),
                 st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True))  # fmt: skip
address = st.ip_addresses().map(lambda ip: str(ip_address(str(ip))))
port = st.integers(1, 65535)
seeds = st.one_of(
    st.builds(Seed, address, port, st.just(SeedKind.ADDRESS)),
    st.builds(Seed, name, port, st.just(SeedKind.NAME)),
    st.builds(Seed, name, port, st.just(SeedKind.DNS)),
    st.builds(lambda service, domain: Seed(f"_{service}._tcp.{domain}", 0, SeedKind.SRV), label, name),
)


@given(st.lists(seeds, min_size=1, max_size=8, unique=True))
def test_seeds_survive_being_written_and_read(listed: list[Seed]) -> None:
    assert parse_seeds(", ".join(map(str, listed))) == tuple(listed)


@given(st.one_of(st.text(max_size=60), st.text("[]:.+%_-,0123456789abcdefsrvdnstp", max_size=60)))
def test_any_text_is_read_or_refused_and_what_is_read_is_stable(text: str) -> None:
    try:
        seed = parse_seed(text)
    except BadSeed:
        return
    assert parse_seed(str(seed)) == seed
    if seed.kind is not SeedKind.SRV:
        assert split_address(join_address(seed.host, seed.port)) == (seed.host, seed.port)


known = st.lists(
    st.builds(Known, st.sampled_from("abcdef"), st.sampled_from(["x:1", "y:1", "z:1"]), st.integers(0, 10**13)),
    unique_by=lambda one: one.id, max_size=6,
)  # fmt: skip
told = st.dictionaries(st.text(max_size=3), st.sampled_from(["", "x:1", "y:1", "z:1"]), max_size=2 * KNOWN_MAX)


@given(known, told, st.integers(0, 10**13))
def test_what_is_followed_names_nobody_the_cluster_does_not_and_is_idempotent(
    before: list[Known], said: dict[str, str], now_ms: int
) -> None:
    after = follow(before, said, now_ms)
    assert len(after) <= max(KNOWN_MAX, len(before))
    assert list(after) == sorted(after, key=lambda one: one.id)
    if said:
        assert {one.id for one in after} <= said.keys()
        assert follow(after, said, now_ms) == after
