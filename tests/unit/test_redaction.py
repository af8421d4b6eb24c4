from __future__ import annotations

import base64
import json
import random
import string
import threading
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_coopcloud.redaction import Redactor

VALUE = 'p"ä/s?s <w>&o$rd\\1+'
ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "json": lambda value: json.dumps(value)[1:-1],
    "json, not ascii": lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
    "json of a browser": lambda value: json.dumps(value)[1:-1].replace("<", "\\u003c").replace(">", "\\u003e").replace(
        "&", "\\u0026"
    ),
    "json with slashes": lambda value: json.dumps(value)[1:-1].replace("/", "\\/"),
    "compose": lambda value: value.replace("$", "$$"),
    "url": quote,
    "url, all of it": lambda value: quote(value, safe=""),
    "form": quote_plus,
    "url, small letters": lambda value: quote(value, safe="").replace("%3C", "%3c").replace("%2F", "%2f").replace(
        "%3F", "%3f"
    ).replace("%C3%A4", "%c3%a4").replace("%3E", "%3e").replace("%5C", "%5c").replace("%2B", "%2b"),
    "hex": lambda value: value.encode().hex(),
    "HEX": lambda value: value.encode().hex().upper(),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 without padding": lambda value: base64.b64encode(value.encode()).decode().rstrip("="),
    "base64 for urls": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
}  # fmt: skip


def blot(*values: str, name: str = "db_password") -> Redactor:
    redactor = Redactor()
    for value in values:
        redactor.add(value, name)
    return redactor


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_value_is_blotted_out_in_each_encoding(encoding: str) -> None:
    written = ENCODINGS[encoding](VALUE)

    assert blot(VALUE).clean(f"before {written} after") == "before [secret db_password] after"


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
@pytest.mark.parametrize("after", ["", "z", "zy", "zyx"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_value_within_a_longer_base64_text_is_blotted_out(
    before: str, after: str, encode: Callable[[bytes], bytes]
) -> None:
    cleaned = blot(VALUE).clean(encode(f"{before}{VALUE}{after}".encode()).decode())

    assert "[secret db_password]" in cleaned
    # What is left on each side holds at most bits of the neighbours and of one edge.
    assert all(len(part) <= 8 for part in cleaned.split("[secret db_password]"))


def test_longer_value_wins_over_one_that_it_begins_with() -> None:
    assert blot("hunter", "hunter2222").clean("hunter2222!") == "[secret db_password]!"


def test_values_that_overlap_leave_nothing_of_either() -> None:
    assert blot("abcdef", "defghi").clean("<abcdefghi>") == "<[secret db_password]>"
    assert blot("ab cdef", "defghi").clean("<ab cdefghi>") == "<[secret db_password]>"


def test_value_within_another_leaves_nothing_of_the_longer_one() -> None:
    assert blot("hunter2222", "nter").clean("<hunter2222>") == "<[secret db_password]>"


def test_short_value_is_left_alone() -> None:
    assert blot("abc", "").clean("abc") == "abc"


def test_value_without_a_name() -> None:
    assert blot("hunter22", name="").clean("hunter22") == "[secret]"


def test_value_that_is_part_of_its_own_replacement_is_replaced_once() -> None:
    redactor = blot("secret", name="secret")

    assert redactor.clean("secret") == "[secret secret]"
    assert "".join(redactor.stream("my secret!")) == "my [secret secret]!"


def test_value_of_several_lines_is_found_behind_the_prefix_of_each_line() -> None:
    cleaned = blot("-----BEGIN KEY-----\nMIIBVQIBADANBg\nshort\n").clean(
        "app | MIIBVQIBADANBg\napp | -----BEGIN KEY-----"
    )

    assert cleaned == "app | [secret db_password]\napp | [secret db_password]"


def test_bytes_that_are_no_utf8_stay_as_they_are() -> None:
    assert blot("hunter22").clean_bytes(b"\xff\xfehunter22\x80") == b"\xff\xfe[secret db_password]\x80"


def test_value_added_later_is_blotted_out_from_then_on() -> None:
    redactor = blot("hunter22")
    redactor.clean("")
    redactor.add("swordfish", "other")

    assert redactor.clean("hunter22 swordfish") == "[secret db_password] [secret other]"


def test_value_split_between_chunks_of_bytes_is_found() -> None:
    data = f"käse {VALUE} ende".encode()

    for size in (1, 2, 3, 7):
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        assert b"".join(blot(VALUE).stream_bytes(chunks)) == "käse [secret db_password] ende".encode()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_encoding_is_found_character_by_character(encoding: str) -> None:
    written = ENCODINGS[encoding](VALUE)

    assert "".join(blot(VALUE).stream(f"<{written}>")) == "<[secret db_password]>"
    # The longest form of a plain value is the one in hexadecimal.
    assert "".join(blot("hunter22").stream("<68756e7465723232>")) == "<[secret db_password]>"


def test_stream_does_not_hold_back_more_than_the_longest_form() -> None:
    redactor = blot("hunter22")
    stream = redactor.stream(iter(["x" * 1000, "y"]))

    assert len(next(stream)) > 900


@settings(max_examples=150, deadline=None, database=None)
@given(
    values=st.lists(st.text(st.sampled_from("abä$/ \n"), min_size=4, max_size=9), min_size=1, max_size=4),
    pieces=st.lists(st.text(st.sampled_from("abä$/ \n=Y"), max_size=6), max_size=8),
    data=st.data(),
)
def test_stream_says_what_clean_says(values: list[str], pieces: list[str], data: st.DataObject) -> None:
    redactor = Redactor()
    for number, value in enumerate(values):
        redactor.add(value, str(number))
    text = "".join(piece + data.draw(st.sampled_from(values)) for piece in pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    streamed = "".join(redactor.stream(chunks))

    assert not any(value in streamed for value in values)
    assert not any(value in redactor.clean(text) for value in values)


def test_threads_may_add_and_clean_at_once() -> None:
    redactor = blot("hunter22")
    seen: list[str] = []

    def work(number: int) -> None:
        redactor.add(f"value-{number:04d}", "x")
        seen.append(redactor.clean(f"value-{number:04d} hunter22"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(seen) == {"[secret x] [secret db_password]"}


def test_a_megabyte_with_a_hundred_values_takes_well_under_a_second_and_a_half() -> None:
    chance = random.Random(1)
    redactor = Redactor()
    for number in range(100):
        redactor.add("".join(chance.choices(string.ascii_letters + string.digits, k=32)), str(number))
    text = "".join(
        f"2026-01-01T00:00:{at % 60:02d}Z app | GET /page/{at * 7919} 200 {at / 7}\n" for at in range(18_000)
    )

    began = time.process_time()
    redactor.clean(text)

    assert len(text) > 1_000_000
    assert time.process_time() - began < 1.5
