"""AES-128 and its mode CCM, for advertisements: a few bytes, now and then (FIPS 197, RFC 3610).

Not for anything else: it is slow, and its running time depends on the key. Why it is here: docs/decisions/0007.
"""

from __future__ import annotations

from functools import cache
from hmac import compare_digest

BLOCK = 16
_ROUNDS = 10
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

    __slots__ = ("_keys",)

    def __init__(self, key: bytes) -> None:
        if len(key) != BLOCK:
            raise ValueError(f"an AES-128 key has {BLOCK} bytes, not {len(key)}")
        self._keys = _expand(key)

    def encrypt_block(self, block: bytes) -> bytes:
        """One block of 16 bytes, as FIPS 197 says."""
        return self._encrypt(int.from_bytes(block, "big")).to_bytes(BLOCK, "big")

    def encrypt(self, nonce: bytes, data: bytes, tag_length: int, associated: bytes = b"") -> bytes:
        """The ciphertext with the tag behind it."""
        tag, stream = self._tag(nonce, data, tag_length, associated), self._stream(nonce, len(data))
        mask = self._encrypt(self._counter(nonce, 0)).to_bytes(BLOCK, "big")
        return _xor(data, stream) + _xor(tag, mask)

    def decrypt(self, nonce: bytes, data: bytes, tag: bytes, associated: bytes = b"") -> bytes | None:
        """The plaintext; None if key, nonce, data or tag are not those that belong together."""
        plain = _xor(data, self._stream(nonce, len(data)))
        mask = self._encrypt(self._counter(nonce, 0)).to_bytes(BLOCK, "big")
        expected = _xor(self._tag(nonce, plain, len(tag), associated), mask)
        return plain if compare_digest(expected, tag) else None

    def _stream(self, nonce: bytes, length: int) -> bytes:
        blocks = range(1, 1 + -(-length // BLOCK))
        return b"".join(self._encrypt(self._counter(nonce, i)).to_bytes(BLOCK, "big") for i in blocks)

    def _counter(self, nonce: bytes, number: int) -> int:
        width = BLOCK - 1 - len(nonce)
        return int.from_bytes(bytes((width - 1,)) + nonce, "big") << 8 * width | number

    def _tag(self, nonce: bytes, plain: bytes, length: int, associated: bytes) -> bytes:
        width = BLOCK - 1 - len(nonce)
        flags = (0x40 if associated else 0) | (length - 2) // 2 << 3 | (width - 1)
        first = bytes((flags,)) + nonce + len(plain).to_bytes(width, "big")
        header = len(associated).to_bytes(2, "big") + associated if associated else b""
        message = first + _padded(header) + _padded(plain)
        state = 0
        for i in range(0, len(message), BLOCK):
            state = self._encrypt(state ^ int.from_bytes(message[i : i + BLOCK], "big"))
        return state.to_bytes(BLOCK, "big")[:length]

    def _encrypt(self, block: int) -> int:
        box, t0, t1, t2, t3 = _tables()
        keys = self._keys
        k0, k1, k2, k3 = keys[0]
        a, b = block >> 96 ^ k0, block >> 64 & 0xFFFFFFFF ^ k1
        c, d = block >> 32 & 0xFFFFFFFF ^ k2, block & 0xFFFFFFFF ^ k3
        for k0, k1, k2, k3 in keys[1:_ROUNDS]:
            a, b, c, d = (
                t0[a >> 24] ^ t1[b >> 16 & 0xFF] ^ t2[c >> 8 & 0xFF] ^ t3[d & 0xFF] ^ k0,
                t0[b >> 24] ^ t1[c >> 16 & 0xFF] ^ t2[d >> 8 & 0xFF] ^ t3[a & 0xFF] ^ k1,
                t0[c >> 24] ^ t1[d >> 16 & 0xFF] ^ t2[a >> 8 & 0xFF] ^ t3[b & 0xFF] ^ k2,
                t0[d >> 24] ^ t1[a >> 16 & 0xFF] ^ t2[b >> 8 & 0xFF] ^ t3[c & 0xFF] ^ k3,
            )
        k0, k1, k2, k3 = keys[_ROUNDS]
        return (
            (box[a >> 24] << 24 | box[b >> 16 & 0xFF] << 16 | box[c >> 8 & 0xFF] << 8 | box[d & 0xFF]) ^ k0
        ) << 96 | (
            (box[b >> 24] << 24 | box[c >> 16 & 0xFF] << 16 | box[d >> 8 & 0xFF] << 8 | box[a & 0xFF]) ^ k1
        ) << 64 | (
            (box[c >> 24] << 24 | box[d >> 16 & 0xFF] << 16 | box[a >> 8 & 0xFF] << 8 | box[b & 0xFF]) ^ k2
        ) << 32 | (
            (box[d >> 24] << 24 | box[a >> 16 & 0xFF] << 16 | box[b >> 8 & 0xFF] << 8 | box[c & 0xFF]) ^ k3
        )  # fmt: skip


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def _xor(data: bytes, other: bytes) -> bytes:
    """`data` combined with as much of `other`."""
    length = len(data)
    return (int.from_bytes(data, "big") ^ int.from_bytes(other[:length], "big")).to_bytes(length, "big")
