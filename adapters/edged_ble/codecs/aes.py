"""AES-128 and its mode CCM, for advertisements: a few bytes, now and then (FIPS 197, RFC 3610).

Not for anything else: it is slow, and its running time depends on the key. Why it is here: docs/decisions/0010.
"""

from __future__ import annotations

from functools import cache
from hmac import compare_digest
from struct import Struct

BLOCK = 16
_ROUNDS = 10
_WORDS = Struct(">4I")
_Tables = tuple[bytes, tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def _double(value: int) -> int:
    return (value << 1) ^ (0x11B if value & 0x80 else 0)


@cache
def _tables() -> _Tables:
    """The S-box, and it joined with the mixing of a column for each of the four rows."""
    log, power = [0] * 256, [0] * 256
    value = 1
    for i in range(255):
        power[i], log[value] = value, i
        value ^= _double(value)
    box = bytearray(256)
    for i in range(256):
        inverse = power[(255 - log[i]) % 255] if i else 0
        spread = inverse * 0x101
        box[i] = 0x63 ^ ((spread ^ spread >> 4 ^ spread >> 5 ^ spread >> 6 ^ spread >> 7) & 0xFF)
    rows: list[tuple[int, ...]] = []
    for row in range(4):
        shift = 8 * row
        words = (_double(one) << 24 | one << 16 | one << 8 | (_double(one) ^ one) for one in box)
        rows.append(tuple((word >> shift | word << (32 - shift)) & 0xFFFFFFFF for word in words))
    return bytes(box), rows[0], rows[1], rows[2], rows[3]


def _expand(key: bytes) -> tuple[tuple[int, int, int, int], ...]:
    box, *_ = _tables()
    words = [int.from_bytes(key[i : i + 4], "big") for i in range(0, BLOCK, 4)]
    constant = 1
    for i in range(4, 4 * (_ROUNDS + 1)):
        word = words[-1]
        if i % 4 == 0:
            turned = (word << 8 | word >> 24) & 0xFFFFFFFF
            word = int.from_bytes(turned.to_bytes(4, "big").translate(box), "big") ^ constant << 24
            constant = _double(constant)
        words.append(words[i - 4] ^ word)
    return tuple((words[i], words[i + 1], words[i + 2], words[i + 3]) for i in range(0, len(words), 4))


class Ccm:
    """AES-128-CCM with one key. `nonce` has 7 to 13 bytes and messages less than 64 KiB."""

    __slots__ = ("_first", "_last", "_rounds")

    def __init__(self, key: bytes) -> None:
        if len(key) != BLOCK:
            raise ValueError(f"an AES-128 key has {BLOCK} bytes, not {len(key)}")
        first, *rounds, last = _expand(key)
        self._first = int.from_bytes(_WORDS.pack(*first), "big")
        self._rounds = tuple(rounds)
        self._last = int.from_bytes(_WORDS.pack(*last), "big")

    def encrypt(self, nonce: bytes, data: bytes, tag_length: int, associated: bytes = b"") -> bytes:
        """The ciphertext with the tag behind it."""
        return self._apply_stream(nonce, data, 1) + self._tag(nonce, data, tag_length, associated)

    def decrypt(self, nonce: bytes, data: bytes, tag: bytes, associated: bytes = b"") -> bytes | None:
        """The plaintext; None if key, nonce, data or tag are not those that belong together."""
        plain = self._apply_stream(nonce, data, 1)
        return plain if compare_digest(self._tag(nonce, plain, len(tag), associated), tag) else None

    def _apply_stream(self, nonce: bytes, data: bytes, start: int) -> bytes:
        """`data` combined with the key stream from this block on."""
        width = BLOCK - 1 - len(nonce)
        head = bytes((width - 1,)) + nonce
        numbers = range(start, start + -(-len(data) // BLOCK))
        return _xor(data, b"".join([self.encrypt_block(head + i.to_bytes(width, "big")) for i in numbers]))

    def _tag(self, nonce: bytes, plain: bytes, length: int, associated: bytes) -> bytes:
        width = BLOCK - 1 - len(nonce)
        flags = (0x40 if associated else 0) | (length - 2) // 2 << 3 | (width - 1)
        first = bytes((flags,)) + nonce + len(plain).to_bytes(width, "big")
        header = len(associated).to_bytes(2, "big") + associated if associated else b""
        message = _padded(header) + _padded(plain)
        state = self.encrypt_block(first)
        for i in range(0, len(message), BLOCK):
            state = self.encrypt_block(_xor(message[i : i + BLOCK], state))
        return self._apply_stream(nonce, state[:length], 0)

    def encrypt_block(self, block: bytes) -> bytes:
        """One block of 16 bytes, as FIPS 197 says."""
        box, t0, t1, t2, t3 = _tables()
        pack = _WORDS.pack
        state = (int.from_bytes(block, "big") ^ self._first).to_bytes(BLOCK, "big")
        for k0, k1, k2, k3 in self._rounds:
            a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3 = state
            state = pack(
                t0[a0] ^ t1[b1] ^ t2[c2] ^ t3[d3] ^ k0,
                t0[b0] ^ t1[c1] ^ t2[d2] ^ t3[a3] ^ k1,
                t0[c0] ^ t1[d1] ^ t2[a2] ^ t3[b3] ^ k2,
                t0[d0] ^ t1[a1] ^ t2[b2] ^ t3[c3] ^ k3,
            )
        a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3 = state.translate(box)
        shifted = bytes((a0, b1, c2, d3, b0, c1, d2, a3, c0, d1, a2, b3, d0, a1, b2, c3))
        return (int.from_bytes(shifted, "big") ^ self._last).to_bytes(BLOCK, "big")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def _xor(data: bytes, other: bytes) -> bytes:
    """`data` combined with as much of `other`."""
    length = len(data)
    return (int.from_bytes(data, "big") ^ int.from_bytes(other[:length], "big")).to_bytes(length, "big")
