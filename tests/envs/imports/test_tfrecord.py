"""TFRecord and tf.train.Example, byte by byte: right data or a DataError, whatever the bytes."""

import gzip
import struct
import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guiderail.agent.errors import DataError, SetupError
from guiderail.envs.imports import tfrecord
from guiderail.envs.imports.tfrecord import TFRecords, crc32c, parse_example, unmask
from tests.envs.imports import public


def read(path, **options):
    return [bytes(payload) for payload in TFRecords(path, **options)]


def test_crc_of_the_standard_check_string():
    assert crc32c(b"123456789") == crc32c(memoryview(bytearray(b"123456789"))) == 0xE3069283


def test_without_the_library_the_user_is_told_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(public.record(b"x"))
    tfrecord._library.cache_clear()
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    with pytest.raises(SetupError, match="google-crc32c; run: "):
        read(tmp_path / "file")


def test_mask_is_undone():
    assert unmask(public.masked(b"abc")) == public.crc32c(b"abc")


PAYLOADS = [b"", b"one", b"two\0\0\0", bytes(range(256)) * 3000]


def test_records_come_back_as_written_gzipped_plain_and_in_several_members(tmp_path):
    raw = [public.record(payload) for payload in PAYLOADS]
    (tmp_path / "plain").write_bytes(b"".join(raw))
    (tmp_path / "one").write_bytes(gzip.compress(b"".join(raw)))
    (tmp_path / "many").write_bytes(b"".join(gzip.compress(part) for part in raw) + b"\0" * 512)
    (tmp_path / "torn").write_bytes(gzip.compress(b"".join(raw)[:20]) + gzip.compress(b"".join(raw)[20:]))
    for name in ("plain", "one", "many", "torn"):
        assert read(tmp_path / name) == PAYLOADS, name


def test_a_plain_file_may_start_with_the_magic_of_gzip(tmp_path):
    payload = b"x" * 0x8B1F
    (tmp_path / "file").write_bytes(public.record(payload))
    assert (tmp_path / "file").read_bytes()[:2] == b"\x1f\x8b"
    assert read(tmp_path / "file") == [payload]


def test_an_empty_file_has_no_records(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    (tmp_path / "gzip").write_bytes(gzip.compress(b""))
    assert read(tmp_path / "plain") == read(tmp_path / "gzip") == []


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_file_that_is_cut_off_anywhere_gives_its_whole_records_then_an_error(tmp_path, compress):
    payloads = [b"first" * 40, bytes(range(200))]
    whole = compress(b"".join(public.record(payload) for payload in payloads))
    borders = {0, len(whole)} | ({len(public.record(payloads[0]))} if compress is bytes else set())
    for end in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:end])
        if end in borders:
            continue
        got = []
        with pytest.raises(DataError, match=r"cut:\d+: "):
            got.extend(bytes(payload) for payload in TFRecords(tmp_path / "cut"))
        assert got == payloads[: len(got)]


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path):
    whole = public.record(b"payload with words")
    for position in range(len(whole)):
        (tmp_path / "flipped").write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(DataError, match=r"flipped:1: "):
            read(tmp_path / "flipped")


def test_the_payload_check_can_be_switched_off_the_length_check_cannot(tmp_path):
    good = public.record(b"payload")
    (tmp_path / "payload").write_bytes(good[:-1] + b"?")
    assert read(tmp_path / "payload", check=False) == [b"payload"]
    (tmp_path / "length").write_bytes(struct.pack("<Q", 1 << 60) + good[8:])
    with pytest.raises(DataError, match="CRC of the record's length"):
        read(tmp_path / "length", check=False)


def test_a_record_of_absurd_length_is_refused_before_it_is_allocated(tmp_path):
    length = struct.pack("<Q", 1 << 40)
    (tmp_path / "huge").write_bytes(length + public.masked(length))
    with pytest.raises(DataError, match=r"1099511627776 bytes"):
        read(tmp_path / "huge")


def test_memory_is_one_record_whatever_the_file(tmp_path):
    payload = bytes(range(256)) * 1000
    path = tmp_path / "large"
    one = public.record(payload)
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(100):
            file.write(one)
    tracemalloc.start()
    try:
        assert sum(len(p) for p in TFRecords(path)) == 100 * len(payload)
        assert tracemalloc.get_traced_memory()[1] < 12 * len(payload)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("packed", [True, False])
def test_features_of_every_kind(packed):
    raw = public.example(
        {"b": [b"a\0\0", b"", "ü"], "i": [0, 1, -1, 300, -(1 << 63), (1 << 63) - 1], "f": [0.5, -2.0], "none": []},
        packed,
    )
    found = parse_example(memoryview(raw), "x:1")
    assert [bytes(v) for v in found["b"]] == [b"a\0\0", b"", "ü".encode()]
    assert found["i"] == [0, 1, -1, 300, -(1 << 63), (1 << 63) - 1]
    assert found["f"] == [0.5, -2.0]
    assert found["none"] == []


def test_unknown_fields_are_passed_over():
    entry = public.message(1, b"i") + public.message(2, public.feature([5]) + b"\x79" + b"\0" * 8) + b"\x50\x07"
    raw = public.message(1, public.message(1, entry) + b"\x7d\0\0\0\0") + public.message(9, b"later")
    assert parse_example(memoryview(raw), "x:1") == {"i": [5]}


@given(st.binary(max_size=80))
def test_any_bytes_are_an_example_or_a_data_error(data):
    for raw in (data, public.message(1, data), public.message(1, public.message(1, public.message(2, data)))):
        try:
            parse_example(memoryview(raw), "x:1")
        except DataError as error:
            assert error.where == "x:1"  # noqa: PT017
