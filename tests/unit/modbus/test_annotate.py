"""What is said of the frames of a Modbus bus."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.media import Frame
from edged_modbus.annotate import annotate
from edged_modbus.ascii import ascii_frame
from edged_modbus.frame import rtu_frame

CHARACTER = 10 / 9600
REQUEST = bytes.fromhex("0300640002")
REPLY = bytes.fromhex("030441c2a803")


def frames(*parts: tuple[str, bytes]) -> list[Frame]:
    """One every 100 ms."""
    return [Frame(1_000_000 + 100_000 * i, "tx" if way == "tx" else "rx", data) for i, (way, data) in enumerate(parts)]


def kinds(*parts: tuple[str, bytes], framing: str = "rtu") -> list[tuple[str, str]]:
    return [(note.kind, note.defect) for note in annotate(frames(*parts), CHARACTER, framing=framing)]


ASK, ANSWER = ("tx", rtu_frame(7, REQUEST)), ("rx", rtu_frame(7, REPLY))


def test_a_request_and_its_answer_field_by_field() -> None:
    request, answer = annotate(frames(ASK, ANSWER), CHARACTER, framing="rtu")
    assert [(part.name, part.text) for part in request.parts] == [
        ("unit", "7"), ("function", "3 read holding registers"), ("address", "100"), ("count", "2"), ("CRC", "ok"),
    ]  # fmt: skip
    assert (request.text, request.device) == ("read holding 100-101", "unit 7")
    assert (answer.kind, answer.text) == ("answer", "2 registers: 41C2 A803")
    assert b"".join(part.data for part in answer.parts) == rtu_frame(7, REPLY)


def test_an_exception_is_named_and_is_an_error() -> None:
    note = annotate(frames(ASK, ("rx", rtu_frame(7, b"\x83\x02"))), CHARACTER, framing="rtu")[-1]
    assert (note.kind, note.error) == ("refusal", "exception 2 (illegal data address)")
    assert all(part.wrong for part in note.parts if part.name in {"function", "exception"})


def test_what_can_go_wrong_with_an_answer() -> None:
    reply = ANSWER[1]
    flipped = reply[:4] + bytes((reply[4] ^ 1,)) + reply[5:]
    for data, expected in {
        flipped: ("damaged", "garbled"),
        reply[:-1]: ("damaged", "cut"),
        reply[:4] + reply[5:]: ("damaged", "short"),
        reply[:4] + b"\x99" + reply[4:]: ("damaged", "inserted"),
        reply[:6] + bytes(range(20)): ("damaged", "long"),
        b"\xf8\x80\xfe\x00\xe6\x99": ("noise", "unknown"),
    }.items():
        assert kinds(ASK, ("rx", data))[1:] == [expected], data.hex()


def test_noise_around_an_answer_is_told_apart_from_it() -> None:
    assert kinds(ASK, ("rx", b"\xff\x00" + ANSWER[1] + b"\xfe"))[1:] == [
        ("noise", "before"), ("answer", ""), ("noise", "after"),
    ]  # fmt: skip


def test_silence_is_told_once_it_is_certain() -> None:
    assert kinds(ASK) == [("request", "")]
    assert kinds(ASK, ASK)[:2] == [("request", ""), ("silence", "")]


def test_a_late_answer_belongs_to_the_request_that_was_given_up() -> None:
    other = ("tx", rtu_frame(9, REQUEST))
    notes = annotate(frames(ASK, other, ANSWER), CHARACTER, framing="rtu")
    assert [note.kind for note in notes] == ["request", "silence", "request", "late"]
    assert 0.15 < notes[-1].after < 0.2


def test_an_echo_and_a_second_answer_and_another_master() -> None:
    assert kinds(ASK, ("rx", ASK[1] + ANSWER[1]))[1:] == [("echo", ""), ("answer", "")]
    assert kinds(ASK, ANSWER, ANSWER)[1:] == [("answer", ""), ("again", "")]
    assert kinds(ASK, ANSWER, ("rx", rtu_frame(3, REQUEST)))[2:] == [("foreign", "")]


def test_the_answer_to_a_single_write_is_no_echo() -> None:
    write = rtu_frame(7, bytes.fromhex("0600010003"))
    assert kinds(("tx", write), ("rx", write))[1:] == [("answer", "")]
    assert kinds(("tx", write), ("rx", write + write))[1:] == [("echo", ""), ("answer", "")]


def test_ascii_frames_too() -> None:
    sent, got = ascii_frame(7, REQUEST), ascii_frame(7, REPLY)
    assert kinds(("tx", sent), ("rx", got), framing="ascii") == [("request", ""), ("answer", "")]


def test_an_identification_is_an_answer_though_its_length_is_not_known_beforehand() -> None:
    ask = ("tx", rtu_frame(7, bytes.fromhex("2b0e0100")))
    pdu = bytes.fromhex("2b0e0183000001") + b"\x00\x05edged"
    assert kinds(ask, ("rx", b"\xff" + rtu_frame(7, pdu))) == [("request", ""), ("noise", "before"), ("answer", "")]
    assert kinds(ask, ("rx", rtu_frame(7, pdu)[:-1] + b"\x00"))[1:] == [("damaged", "garbled")]


def tcp(number: int, body: bytes) -> bytes:
    return number.to_bytes(2, "big") + b"\0\0" + len(body).to_bytes(2, "big") + body


def test_a_connection_is_followed_by_its_transaction_numbers() -> None:
    ask, answer = tcp(5, b"\x07" + REQUEST), tcp(5, b"\x07" + REPLY)
    assert kinds(("tx", ask), ("rx", answer), framing="tcp") == [("request", ""), ("answer", "")]
    assert kinds(("tx", ask), ("rx", answer[:5]), ("rx", answer[5:]), framing="tcp") == [
        ("request", ""),
        ("answer", ""),
    ]
    assert kinds(("tx", ask), ("rx", tcp(9, b"\x07" + REPLY)), framing="tcp")[1] == ("foreign", "")
    assert kinds(("tx", ask), ("rx", tcp(5, b"\x08" + REPLY)), framing="tcp")[1] == ("damaged", "foreign")
    assert kinds(("tx", ask), ("rx", b"HTTP/1.1 400"), framing="tcp")[1] == ("noise", "unknown")
    assert kinds(("tx", ask), ("tx", tcp(6, b"\x07" + REQUEST)), framing="tcp")[1] == ("silence", "")


@given(
    st.lists(
        st.tuples(st.sampled_from(["tx", "rx"]), st.one_of(st.binary(max_size=30), st.just(ANSWER[1]))), max_size=9
    ),
    st.sampled_from(["rtu", "ascii", "tcp"]),
)
def test_no_bytes_are_too_strange(parts: list[tuple[str, bytes]], framing: str) -> None:
    notes = annotate(frames(*parts), CHARACTER, framing=framing)
    received = sum(len(data) for way, data in parts if way == "rx")
    told = sum(len(note.frame.data) for note in notes if note.frame.direction == "rx")
    if framing == "rtu":
        assert told == received  # every byte is in exactly one note
