"""The words of NATS: names in subjects, headers of messages, parts of long ones, and addresses of servers."""

from __future__ import annotations

import re

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from asynctrack.backends.nats_address import address_problems, is_nats, servers_in
from asynctrack.carriers import wire
from asynctrack.carriers.message import Place
from asynctrack.carriers.nats import wire as nats_wire
from asynctrack.carriers.nats.stream import meaning_of
from asynctrack.carriers.nats.wire import Joiner, Sent
from asynctrack.carriers.wire import PartName
from asynctrack.settings import project_directory

PLACES = st.builds(Place, *[st.integers(0, 2**63 - 1)] * 3)
SENT = st.builds(
    lambda journal, after, upto, parts, at, deflated, answers, time_ns, behind: Sent(
        journal, after, upto, min(at, parts), parts, deflated, answers, time_ns, behind
    ),
    st.binary(min_size=16, max_size=16),
    PLACES,
    PLACES,
    st.integers(1, 999),
    st.integers(1, 999),
    st.booleans(),
    st.integers(0, 1 << 40),
    st.integers(0, 2**63 - 1),
    st.none() | st.integers(0, 2**63 - 1),
)
# What NATS lets a key of a bucket have.
KEY = re.compile(r"[-/_=.a-zA-Z0-9]+", re.ASCII)


@hypothesis.given(
    project=st.text(min_size=1, max_size=40), run=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_\-. ]{0,30}", fullmatch=True)
)
@hypothesis.example(project="a.b *>", run="x y.z")
def test_subject_names_the_part_that_it_was_made_for(project: str, run: str) -> None:
    try:
        name = PartName(project_directory(project), run, "node-1.local")
    except ValueError:
        hypothesis.reject()
    hypothesis.assume(wire.is_name(name))
    subject = nats_wire.subject_of(name)
    assert nats_wire.part_in(subject) == name == nats_wire.part_in(nats_wire.subject_of(name, nats_wire.ALIVE))
    assert KEY.fullmatch(nats_wire.key_of(name))
    assert subject.count(".") == 5
    assert not set("*> ") & set(subject)


@pytest.mark.parametrize(
    "subject",
    [
        "asynctrack.v1.00.p.r",
        "asynctrack.v1.00.p.r.h",  # another shard's
        "asynctrack.v1.{}.p.r.h.more",
        "asynctrack.v1.{}.p.=2E=2E.h",
        "asynctrack.v1.{}.p.=72.h",  # a letter that needs no `=XX`
        "asynctrack.v1.{}.=FF.r.h",
        "asynctrack.v1.{}..r.h",
        "asynctrack.v1.{}.p.r.=2Fetc",
        "asynctrack.v2.{}.p.r.h",
    ],
)
def test_subject_that_no_host_has_names_no_part(subject: str) -> None:
    assert nats_wire.part_in(f"asynctrack.v1.{nats_wire.shard_of('r')}.p.r.h")
    assert nats_wire.part_in(subject.format(nats_wire.shard_of("r"))) is None


@hypothesis.given(SENT)
def test_headers_say_what_was_sent(sent: Sent) -> None:
    headers = nats_wire.headers_of(sent)
    assert nats_wire.sent_in(headers) == sent
    assert sum(map(len, [*headers, *headers.values()])) < nats_wire.HEADER_ROOM // 2


@hypothesis.given(
    st.dictionaries(
        st.sampled_from([*nats_wire.headers_of(Sent(bytes(16), Place(), Place(), 1, 2, True, 1))]), st.text()
    )
)
def test_headers_of_somebody_else_are_none(headers: dict[str, str]) -> None:
    assert nats_wire.sent_in(headers) is None
    assert nats_wire.sent_in(None) is None


def test_message_of_which_parts_are_missing_is_to_be_sent_again_from_its_beginning() -> None:
    begin, end = Place(1, 64, 9), Place(1, 999, 9)
    assert Sent(bytes(16), begin, end, 2, 3).place == begin
    assert Sent(bytes(16), begin, end, 3, 3).place == end


@hypothesis.given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(1, 100), st.randoms())
def test_messages_in_parts_are_joined_whatever_was_broken_off_before(
    bodies: list[bytes], most: int, chance: object
) -> None:
    joiner, found = Joiner(1 << 20), []
    for at, body in enumerate(bodies):
        cut = nats_wire.pieces(body, most)
        assert all(len(piece) <= most for piece in cut)
        sent = [Sent(bytes(16), Place(at), Place(at + 1), number, len(cut)) for number in range(1, len(cut) + 1)]
        broken_off = chance.randrange(len(cut))  # type: ignore[attr-defined]  # a `random.Random`
        for one, piece in [*list(zip(sent, cut, strict=True))[:broken_off], *zip(sent, cut, strict=True)]:
            if (whole := joiner.add(one, piece)) is not None:
                found.append(whole)
    assert found == bodies


def test_parts_that_do_not_go_on_are_dropped() -> None:
    joiner = Joiner(100)
    first = Sent(bytes(16), Place(1), Place(2), 1, 3)
    assert joiner.add(first._replace(part=2), b"b") is None
    assert joiner.add(first, b"a") is None
    assert joiner.add(first._replace(part=3), b"c") is None
    assert joiner.add(first._replace(part=2), b"b") is None
    assert [joiner.add(first._replace(part=at), b"%d" % at) for at in (1, 2, 3)] == [None, None, b"123"]


def test_parts_of_a_message_that_is_too_large_are_not_kept() -> None:
    joiner = Joiner(100)
    first = Sent(bytes(16), Place(1), Place(2), 1, 3)
    assert joiner.add(first, bytes(60)) is None
    with pytest.raises(wire.InflatesTooFar):
        joiner.add(first._replace(part=2), bytes(60))
    assert joiner.add(first._replace(part=3), bytes(60)) is None


def test_words_and_signs_of_life_that_are_none_are_none() -> None:
    word = nats_wire.Word(
        journal="ab", have=Place(1, 2, 3), want=Place(), number=4, missing=nats_wire.Missing(7, 8, "why")
    )
    assert nats_wire.word_in(msgspec.json.encode(word)) == word
    for bad in (b"", b"[]", b'{"journal":7}', b"\xff", b"[" * 100_000):
        assert nats_wire.word_in(bad) is None
        assert nats_wire.alive_in(bad) is None


def test_errors_of_the_server_say_what_to_do() -> None:
    assert meaning_of(400, 10071) == "moved"
    assert meaning_of(503, 10077) == "full"
    assert meaning_of(503, 99999) == "not_now"
    assert meaning_of(400, 99999) == "denied"


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("nats://a", ["nats://a:4222"]),
        ("nats://a:1,b", ["nats://a:1", "nats://b:4222"]),
        ("tls://a:1,tls://b:2/", ["tls://a:1", "tls://b:2"]),
        ("nats://[::1]:4223", ["nats://[::1]:4223"]),
    ],
)
def test_address_names_servers(url: str, servers: list[str]) -> None:
    assert is_nats(url)
    assert address_problems("collect", url) == []
    assert servers_in(url) == servers


@pytest.mark.parametrize(
    "url",
    [
        "nats://",
        "nats://a,",
        "nats://a:0",
        "nats://a:99999",
        "nats://a,tls://b",
        "nats://a/b",
        "nats://a b",
        "http://a",
        7,
    ],
)
def test_address_that_cannot_be_used_is_named(url: object) -> None:
    assert address_problems("collect", url)


def test_key_in_an_address_is_not_repeated() -> None:
    (problem,) = address_problems("collect", "nats://user:sesame@a:4222")
    assert "sesame" not in problem
    assert "environment" in problem
