"""A box asks for its tail and believes only its hub, and only an answer to what it asked."""

import hashlib
import os
import random

import pytest
from sync_parts import EPOCH, JOURNAL, chained

from edge.core import frame, recall
from edge.core.errors import LinesideError
from edge.core.record import ZERO_HASH
from hub.store import open_store

SEED = int(os.environ.get("LINESIDE_SEED", "7"))
ROWS = chained([b'{"n":%d}' % n for n in range(1, 10)])


def asked(device, after, nonce="aa" * 16):
    return recall.Request(
        device=device.fingerprint,
        journal=JOURNAL.hex(),
        after_seq=after.seq,
        after_hash=after.hash.hex(),
        nonce=nonce,
    )


def answered(request, hub, rows, previous, **said):
    facts = {
        "hub": hub.fingerprint, "device": request.device, "journal": request.journal, "nonce": request.nonce,
        "state": "rows", "head_seq": 9, "head_hash": ROWS[-1].hash.hex(), "made_seq": 11,
        "frame_sha256": ZERO_HASH.hex(), **said,
    }  # fmt: skip
    data, _ = frame.make(rows, journal=JOURNAL, previous=previous, made_seq=11, signer=hub)
    return recall.make_answer(recall.Answer(**facts), data, hub)


def refused(code, work):
    with pytest.raises(LinesideError) as error:
        work()
    assert error.value.code == code, error.value
    assert error.value.todo


def test_what_is_asked_and_answered_is_read_back(device_key, hub_key):
    request = asked(device_key, ROWS[3])
    data = recall.make_request(request, device_key)
    trusted = {device_key.fingerprint: device_key.public}
    assert recall.read_request(data, trusted, device_key.fingerprint) == request
    refused("recall.unknown_device", lambda: recall.read_request(data, {}, device_key.fingerprint))
    refused("recall.wrong_topic", lambda: recall.read_request(data, trusted, "0" * 32))
    other = data.replace(b'"after_seq":4', b'"after_seq":1')
    refused("recall.signature", lambda: recall.read_request(other, trusted, device_key.fingerprint))
    answer = answered(request, hub_key, ROWS[4:7], ROWS[3].hash)
    said, got = recall.read_answer(answer, request, hub_key.public)
    assert (said.head_seq, said.made_seq, got.rows) == (9, 11, tuple(ROWS[4:7]))


def lies(request, device_key, hub_key):
    """Answers that must not be believed, by the code of their refusal."""
    good = answered(request, hub_key, ROWS[4:7], ROWS[3].hash)
    head, _, carried = good.partition(b"\n")
    old = answered(asked(device_key, ROWS[3], "bb" * 16), hub_key, ROWS[4:7], ROWS[3].hash)
    return [
        ("recall.other_answer", old),
        ("recall.other_answer", head),
        ("recall.other_answer", head + b"\n" + carried[:-1] + bytes([carried[-1] ^ 1])),
        ("recall.other_answer", answered(request, hub_key, ROWS[5:7], ROWS[4].hash)),
        ("recall.other_answer", answered(request, hub_key, ROWS[4:7], ROWS[3].hash, state="end")),
        ("recall.other_answer", answered(request, hub_key, ROWS[4:7], ROWS[3].hash, device="0" * 32)),
        ("recall.answer_signature", answered(request, device_key, ROWS[4:7], ROWS[3].hash)),
        ("recall.answer_signature", good.replace(b'"made_seq":11', b'"made_seq":12')),
        ("recall.malformed", bytes(recall.ANSWER_BYTES_MAX + 1)),
        ("recall.malformed", bytes(recall.HEAD_BYTES_MAX + 1)),
    ]


def assert_lies_are_refused(device_key, hub_key):
    request = asked(device_key, ROWS[3])
    for code, answer in lies(request, device_key, hub_key):
        refused(code, lambda answer=answer: recall.read_answer(answer, request, hub_key.public))


def test_an_old_another_or_a_foreign_answer_is_not_believed(device_key, hub_key):
    assert_lies_are_refused(device_key, hub_key)


def test_planted_bug_an_answer_whose_signature_is_not_verified_is_caught(device_key, hub_key, monkeypatch):
    monkeypatch.setattr(recall, "signature_holds", lambda *_: True)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        assert_lies_are_refused(device_key, hub_key)


def test_planted_bug_an_answer_to_an_earlier_request_is_caught(device_key, hub_key):
    real = recall.read_answer

    def forgetful(data, request, public):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recall, "Answer", lambda **said: recall_answer(**{**said, "nonce": request.nonce}))
            return real(data, request, public)

    recall_answer = recall.Answer
    request = asked(device_key, ROWS[3])
    old = lies(request, device_key, hub_key)[0][1]
    assert forgetful(old, request, hub_key.public)[1] is not None, "the bug is there"
    refused("recall.other_answer", lambda: real(old, request, hub_key.public))


def test_noise_is_refused_in_words(device_key, hub_key):
    chance, request = random.Random(SEED), asked(device_key, ROWS[3])
    trusted = {device_key.fingerprint: device_key.public}
    asking = recall.make_request(request, device_key)
    answer = answered(request, hub_key, ROWS[4:7], ROWS[3].hash)
    for _ in range(1_500):
        for data, read in (
            (asking, lambda noise: recall.read_request(noise, trusted, device_key.fingerprint)),
            (answer, lambda noise: recall.read_answer(noise, request, hub_key.public)),
        ):
            noise = bytearray(data)
            for _ in range(chance.randint(1, 5)):
                noise[chance.randrange(len(noise))] = chance.randrange(256)
            noise = bytes(noise[: chance.choice((len(noise), chance.randrange(len(noise))))])
            if noise == data:
                continue
            with pytest.raises(LinesideError, match=r"^(recall|frame)\."):
                read(noise)
    deep = b"[" * 4_000
    refused("recall.malformed", lambda: recall.read_answer(deep, request, hub_key.public))


# What the hub answers ------------------------------------------------------------------------------------------------


async def say(store, trusted, device, rows, previous=ZERO_HASH, made_seq=0):
    data, count = frame.make(rows, journal=JOURNAL, previous=previous, made_seq=made_seq or rows[-1].seq, signer=device)
    assert count == len(rows)
    return await store.ingest(data, trusted)


async def fetched(store, hub_key, device, after):
    """All that the hub gives behind a row, and how it ends."""
    rows = []
    while True:
        request = asked(device, rows[-1] if rows else after, hashlib.sha256(b"%d" % len(rows)).hexdigest()[:32])
        answer, got = recall.read_answer(await store.tail(request), request, hub_key.public)
        if got is None:
            return rows, answer
        rows += got.rows


async def test_the_hub_gives_every_row_once_over_epochs_and_frames(tmp_path, device_key, hub_key):
    trusted = {device_key.fingerprint: device_key.public}
    chance = random.Random(SEED)
    first = chained([b'{"x":"%s"}' % chance.randbytes(n * 97 % 3_000).hex().encode() for n in range(120)])
    second = chained([b'{"y":%d}' % n for n in range(40)], first=101, previous=first[99].hash, epoch=b"2" * 16)
    third = chained([b'{"z":%d}' % n for n in range(5)], first=131, previous=second[29].hash, epoch=b"3" * 16)
    async with open_store(tmp_path / "hub.db", hub_key) as store:
        for life, base in ((first, ZERO_HASH), (second, first[99].hash), (third, second[29].hash)):
            at, previous = 0, base
            while at < len(life):
                data, count = frame.make(
                    life[at:], journal=JOURNAL, previous=previous, made_seq=life[-1].seq + 2, signer=device_key
                )
                await store.ingest(data, trusted)
                at, previous = at + count, life[at + count - 1].hash
        rows, answer = await fetched(store, hub_key, device_key, first[9])
        assert rows == [*first[10:100], *second[:30], *third], "the newest life, with all that it continues"
        assert (answer.state, answer.head_seq, answer.made_seq) == ("end", 135, 137)
        assert {row.epoch for row in rows} == {EPOCH, b"2" * 16, b"3" * 16}
        _, answer = await fetched(store, hub_key, device_key, first[110])
        assert answer.state == "fork", "a row of a life that another one replaced"
        ahead = chained([b"{}"] * 10, first=136, previous=third[-1].hash, epoch=b"3" * 16)[-1]
        _, answer = await fetched(store, hub_key, device_key, ahead)
        assert (answer.state, answer.head_seq, answer.head_hash) == ("behind", 135, third[-1].hash.hex())
