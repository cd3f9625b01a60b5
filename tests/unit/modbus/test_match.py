"""Which registers show what a display shows: 200 random devices, and single cases."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from edged_modbus.fingerprint import decoded
from edged_modbus.guess import Kind
from edged_modbus.match import Match, Shown, search
from edged_modbus.planner import Table
from edged_modbus.point import ModbusPoint
from tests.support.unknown import Quantity, Unknown, unknown_device

CASES = 200
TOLERANCE = 0.01


def looks(device: Unknown, quantity: Quantity) -> list[Shown]:
    return [Shown.parse(text, TOLERANCE, image) for text, image in zip(quantity.shown, device.images, strict=True)]


def is_right(match: Match, point: ModbusPoint) -> bool:
    """The very register, type, order and scale; where no value was negative, signed or unsigned is not to be told."""
    return (
        (match.table, match.address) == (point.table, point.start)
        and point.data_type in {match.kind.type, match.twin}
        and match.kind.order == (point.order or "AB")
        and match.scale == pytest.approx(point.scale)
    )


def possible(match: Match, device: Unknown, quantity: Quantity) -> bool:
    """Whether the configuration it proposes, decoded as the daemon does, gives what the display showed each time."""
    place = {str(match.table): match.address, "type": match.kind.type, "order": match.kind.order, "scale": match.scale}
    point = ModbusPoint(**place)  # type: ignore[arg-type]  # the keys of a point
    for text, image in zip(quantity.shown, device.images, strict=True):
        words = [image[point.table][point.start + i] for i in range(point.count)]
        value = decoded(point, words)
        digit = float(10 ** Decimal(int(Decimal(text).as_tuple().exponent)))
        assert isinstance(value, int | float)
        if abs(value - float(text)) > max(TOLERANCE * abs(float(text)), digit) * (1 + 1e-6):
            return False
    return True


# On 3 × 200 devices of other seeds (10000, 20000 and 30000 on) it was 196, 198 and 196 of 200.
def test_two_values_put_the_right_register_first_in_95_of_100_random_devices_and_nothing_impossible_is_listed() -> None:
    right = 0
    for seed in range(CASES):
        device = unknown_device(seed)
        quantity = random.Random(f"which {seed}").choice(device.quantities)
        found = search(looks(device, quantity))
        assert any(is_right(match, quantity.point) for match in found), f"device {seed}: the right one is not listed"
        assert all(possible(match, device, quantity) for match in found), f"device {seed}: an impossible one"
        right += is_right(found[0], quantity.point)
    assert right >= 0.95 * CASES, f"{right} of {CASES}"


def test_a_second_value_only_ever_narrows() -> None:
    for seed in range(20):
        device = unknown_device(seed)
        shown = looks(device, device.quantities[0])
        once = {(one.table, one.address, one.kind, one.exponent) for one in search(shown[:1])}
        twice = {(one.table, one.address, one.kind, one.exponent) for one in search(shown)}
        assert twice <= once | {(t, a, Kind(f"u{k.type}", k.order), e) for t, a, k, e in once}


def test_two_values_leave_only_one_of_two_floats_that_share_their_upper_register() -> None:
    """CDAB at 18 is right; ABCD at 19 has its upper register, and the lower one of the value behind it."""
    images = [
        {Table.HOLDING: dict(enumerate([0x06D6, 0x4134, low, 0x4276, neighbour, 0x4230, 0x0013, 0], 16))}
        for low, neighbour in ((0xC308, 0xFFB4), (0xE000, 0x1F00))
    ]
    shown = [Shown.parse(text, 0.01, image) for text, image in zip(("61.7", "61.7"), images, strict=True)]
    assert [(one.address, one.kind.order) for one in search(shown[:1])] == [(18, "CDAB"), (19, "ABCD")]
    shown[1] = Shown.parse("61.8", 0.01, {Table.HOLDING: {**images[1][Table.HOLDING], 18: 0x3333, 19: 0x4277}})
    assert [(one.address, one.kind.order) for one in search(shown)] == [(18, "CDAB")]


def test_an_unsigned_reading_names_the_signed_one_that_would_be_the_same() -> None:
    (match,) = search([Shown.parse("23.1", 0.01, {Table.HOLDING: {7: 231}})])
    assert (match.kind.type, match.twin, match.scale) == ("uint16", "int16", 0.1)
    (negative,) = search([Shown.parse("-23.1", 0.01, {Table.HOLDING: {7: 0x10000 - 231}})])
    assert (negative.kind.type, negative.twin) == ("int16", "")


def test_a_value_is_never_put_together_across_a_hole() -> None:
    image = {Table.HOLDING: {10: 0x4366, 12: 0x6666}}
    assert not [match for match in search([Shown.parse("230.4", 0.01, image)]) if match.kind.registers > 1]


def test_bits_are_no_values() -> None:
    assert not search([Shown.parse("1", 0.01, {Table.COIL: {0: 1}})])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("abc", "not a number"),
        ("", "not a number"),
        ("0", "every empty register"),
        ("0.00", "every empty register"),
        ("nan", "every empty"),
        ("1e400", "every empty"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Shown.parse(text, 0.01, {})


def test_a_comma_is_a_decimal_point_as_on_many_displays() -> None:
    assert Shown.parse("230,4", 0.01, {}).value == 230.4


def test_the_tolerance_is_at_least_one_digit_of_the_display() -> None:
    assert Shown.parse("7", 0.01, {}).tolerance == pytest.approx(1)
    assert Shown.parse("700.0", 0.01, {}).tolerance == pytest.approx(7)
    with pytest.raises(ValueError, match="0% and 20%"):
        Shown.parse("7", 0.5, {})
