from __future__ import annotations

import pytest

from edged_ble.codecs.advert import Advertisement, uuid_of
from edged_ble.config import Allow
from edged_ble.strangers import MOST, MOST_PRIVATE, Allowed, Strangers, is_private


def test_rotating_addresses_neither_grow_the_list_nor_push_out_sensors() -> None:
    known = Strangers(None)
    for number in range(50):
        known.hear(Advertisement(f"A4:C1:38:00:00:{number:02X}", rssi=-80), number, private=False)
    for number in range(100_000):
        address = f"4A:00:{number >> 16 & 255:02X}:{number >> 8 & 255:02X}:{number & 255:02X}:00"
        known.hear(Advertisement(address, rssi=-50), number, private=True)
    assert len(known) == 50 + MOST_PRIVATE
    for number in range(1000):
        known.hear(Advertisement(f"C0:00:00:00:{number >> 8:02X}:{number & 255:02X}"), number, private=False)
    assert len(known) == MOST + MOST_PRIVATE


def test_the_strongest_comes_first_with_all_that_it_ever_said() -> None:
    known = Strangers(None)
    known.hear(Advertisement("A", "Sensor", -70, {1: b"x"}), 1, private=False)
    known.hear(Advertisement("A", None, -60), 2, private=False)
    known.hear(Advertisement("B", None, -50), 3, private=False)
    first, second = known.all()
    assert first.advertisement.address == "B"
    assert (second.name, second.rssi, second.count, second.last) == ("Sensor", -60, 2, 2)
    assert second.advertisement.manufacturer_data == {1: b"x"}


@pytest.mark.parametrize(
    ("allow", "yes"),
    [
        (None, True),
        (Allow(), False),
        (Allow(addresses=("a4:c1:38",)), True),
        (Allow(addresses=("A4:C1:39",)), False),
        (Allow(names=("ATC_*",)), True),
        (Allow(names=("LYWSD*",)), False),
        (Allow(services=("181A",)), True),
        (Allow(services=("180F",)), True),
        (Allow(services=("FCD2",)), False),
        (Allow(companies=(0x0499,)), True),
        (Allow(companies=(0x004C,)), False),
    ],
)
def test_who_is_remembered(allow: Allow | None, yes: bool) -> None:
    adv = Advertisement(
        "A4:C1:38:01:02:03", "ATC_123", -60, {0x0499: b"x"}, {uuid_of("181A"): b"y"}, (uuid_of("180F"),)
    )
    assert Allowed(allow)(adv) is yes


@pytest.mark.parametrize(
    ("address", "kind", "yes"),
    [
        ("4A:00:00:00:00:00", "random", True),  # resolvable
        ("2A:00:00:00:00:00", "random", True),  # not resolvable
        ("CA:00:00:00:00:00", "random", False),  # static
        ("4A:00:00:00:00:00", "public", False),
    ],
)
def test_which_addresses_change(address: str, kind: str, yes: bool) -> None:
    assert is_private(address, kind) is yes
