from __future__ import annotations

from typing import Any

from edged_ble.fresh import Fresh

PATH = "/org/bluez/hci0/dev_X"


def parts(fresh: Fresh, properties: dict[str, Any], *, passive: bool = False) -> tuple[dict[int, bytes], bool]:
    manufacturer, _, news = fresh.parts(PATH, properties, keep=True, passive=passive)
    return dict(manufacturer), news


def test_data_that_bluetoothd_did_not_send_again_are_old() -> None:
    fresh = Fresh()
    data = {1: b"a"}
    assert parts(fresh, {"RSSI": -60, "ManufacturerData": data}) == ({1: b"a"}, True)
    assert parts(fresh, {"RSSI": -60, "ManufacturerData": data, "Connected": True}) == ({}, False)
    assert parts(fresh, {"RSSI": -59, "ManufacturerData": data}) == ({}, True), "heard, but with other contents"
    assert parts(fresh, {"RSSI": -59, "ManufacturerData": {1: b"a"}}) == ({1: b"a"}, True), "sent again"


def test_what_bluetoothd_knew_before_is_of_unknown_age() -> None:
    fresh = Fresh()
    fresh.begin({PATH})
    data = {1: b"a"}
    assert parts(fresh, {"RSSI": -60, "ManufacturerData": data}) == ({}, False)
    assert parts(fresh, {"RSSI": -60, "ManufacturerData": {1: b"a"}}) == ({1: b"a"}, True)


def test_without_a_signal_strength_nobody_scans() -> None:
    assert parts(Fresh(), {"ManufacturerData": {1: b"a"}}) == ({}, False)


def test_a_passive_scan_merges_so_only_what_differs_is_new() -> None:
    fresh = Fresh()
    parts(fresh, {"RSSI": -60, "ManufacturerData": {1: b"a"}}, passive=True)
    merged = {1: b"a", 2: b"b"}
    assert parts(fresh, {"RSSI": -60, "ManufacturerData": merged}, passive=True) == ({2: b"b"}, True)


def test_strangers_do_not_accumulate() -> None:
    fresh = Fresh()
    for number in range(10_000):
        fresh.parts(f"/dev_{number}", {"RSSI": -60, "ManufacturerData": {1: b"a"}}, keep=False, passive=False)
    assert len(fresh) < 3000
