"""What can be wrong between edged and a radio, in one line each, with the remedy."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from bleak.exc import BleakBluetoothNotAvailableError, BleakBluetoothNotAvailableReason, BleakDBusError, BleakError
from dbus_fast.errors import AuthError, DBusError

from edged.adapter import Reason, TransientError

RFKILL = Path("/sys/class/rfkill")
FOREIGN = (BleakError, DBusError, AuthError, OSError, EOFError, TimeoutError, AssertionError)
"""What bleak and dbus-fast raise. AssertionError: bleak asserts that its D-Bus connection is there."""

NO_DBUS = (
    "there is no D-Bus system bus here, and without it no Bluetooth: sudo apt install dbus; in a container, mount "
    "/run/dbus from the host"
)
NO_BLUETOOTHD = (
    "bluetoothd does not run: sudo apt install bluez && sudo systemctl enable --now bluetooth (it picks up by itself)"
)
NO_PERMISSION = (
    "edged may not talk to bluetoothd: sudo usermod -aG bluetooth edged && sudo systemctl restart edged; see "
    "docs/how-to/ble-radio.md"
)
HUNG = "bluetoothd does not answer: sudo systemctl restart bluetooth"
BLOCKED = {
    "soft": "the radio {} is switched off by rfkill: sudo rfkill unblock bluetooth",
    "hard": "the radio {} is switched off by a hardware switch or the BIOS (rfkill says `hard blocked`)",
}
OFF = "the radio {} is off and cannot be switched on ({}): bluetoothctl power on, or unplug it and plug it in again"


def unreachable(message: str) -> TransientError:
    """The failure of a radio, not of a device."""
    return TransientError(message, reason=Reason.UNREACHABLE)


def explain(exc: BaseException, radio: str = "") -> TransientError:
    """One line with the remedy for what D-Bus, bluetoothd or bleak said."""
    if isinstance(exc, TransientError):
        return exc
    if isinstance(exc, TimeoutError):
        return unreachable(HUNG)
    if isinstance(exc, BleakDBusError):
        return explain_name(exc.dbus_error, exc.dbus_error_details or "", radio)
    if isinstance(exc, DBusError):
        return explain_name(exc.type, exc.text, radio)
    if isinstance(exc, BleakBluetoothNotAvailableError):
        denied = exc.reason in {
            BleakBluetoothNotAvailableReason.DENIED_BY_SYSTEM, BleakBluetoothNotAvailableReason.DENIED_BY_USER,
            BleakBluetoothNotAvailableReason.DENIED_BY_UNKNOWN,
        }  # fmt: skip
        return unreachable(NO_PERMISSION if denied else no_radio(radio))
    if isinstance(exc, AuthError | PermissionError):
        return unreachable(NO_PERMISSION)
    if isinstance(exc, OSError | EOFError):
        missing = not isinstance(exc, OSError) or exc.errno in {errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR}
        gone = isinstance(exc, EOFError | ConnectionResetError | BrokenPipeError)
        if gone:
            return unreachable("the connection to D-Bus was lost; it is made again")
        return unreachable(NO_DBUS if missing else f"D-Bus cannot be reached ({exc})")
    return unreachable(f"bluetoothd: {str(exc) or type(exc).__name__}")


def explain_name(name: str, text: str, radio: str) -> TransientError:
    """The same for an error reply of D-Bus."""
    kind = name.rpartition(".")[2]
    if kind in {"ServiceUnknown", "NameHasNoOwner", "Spawn", "NoReply", "Disconnected"} or ".Spawn." in name:
        return unreachable(HUNG if kind == "NoReply" else NO_BLUETOOTHD)
    if kind in {"AccessDenied", "NotAuthorized"}:
        return unreachable(NO_PERMISSION)
    if "rfkill" in text.lower():
        return unreachable(BLOCKED["soft"].format(radio))
    if kind == "NotReady":
        return unreachable(OFF.format(radio, "bluetoothd says it is not ready"))
    if kind in {"UnknownObject", "UnknownMethod"}:
        return unreachable(no_radio(radio))
    return unreachable(f"bluetoothd: {text or name}")


def no_radio(radio: str) -> str:
    """That there is none, with the remedy."""
    which = f"Bluetooth radio {radio}" if radio else "Bluetooth radio"
    return f"there is no {which}: plug it in, and look with `bluetoothctl list` and `dmesg | grep -i bluetooth`"


def rfkill_block(index: str, root: Path = RFKILL) -> str:
    """`soft`, `hard` or nothing: whether rfkill holds the radio off. Without a name: any Bluetooth radio."""
    found = ""
    with contextlib.suppress(OSError):
        for entry in sorted(root.iterdir()):
            with contextlib.suppress(OSError):
                if (entry / "type").read_text().strip() != "bluetooth":
                    continue
                if index and (entry / "name").read_text().strip() not in {index, ""}:
                    continue
                if (entry / "hard").read_text().strip() == "1":
                    return "hard"
                if (entry / "soft").read_text().strip() == "1":
                    found = "soft"
    return found
