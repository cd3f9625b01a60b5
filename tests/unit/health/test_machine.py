"""What Linux tells of a machine: real files in a tree of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.health.machine import cpu_seconds, disk, machine, process

STATUS = "Name:\tedged\nVmHWM:\t   45000 kB\nVmRSS:\t   41000 kB\nThreads:\t4\n"
IO = "rchar: 1\nwrite_bytes: 123456\ncancelled_write_bytes: 7\n"
STAT = "42 (python3 (x) y) S 1 42 42 0 -1 4194560 9000 0 0 0 150 50 7 3 20 0 4 0 1000 1 1\n"


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_pi_tells_all_of_it(tmp_path: Path) -> None:
    root = put(
        tmp_path,
        {
            "proc/self/status": STATUS,
            "proc/self/io": IO,
            "proc/self/stat": STAT,
            "proc/self/fd/0": "",
            "proc/self/fd/1": "",
            "proc/meminfo": "MemTotal:  947732 kB\nMemFree: 1 kB\nMemAvailable:  600000 kB\n",
            "proc/uptime": "5123.11 20000.00\n",
            "proc/loadavg": "0.31 0.20 0.10 1/100 4242\n",
            "sys/class/thermal/thermal_zone0/temp": "51540\n",
            "sys/class/thermal/thermal_zone1/temp": "-274000\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
            "sys/block/mmcblk0/device/life_time": "0x02 0x03\n",
            "sys/block/mmcblk0/device/pre_eol_info": "0x01\n",
        },
    )
    own = process(root, 0.02)
    assert (own.rss, own.rss_max, own.threads, own.written) == (41000 * 1024, 45000 * 1024, 4, 123456)
    assert (own.cpu, own.cpu_seconds, own.files) == (0.02, 2.1, 2)
    found = machine(root)
    assert (found.memory_total, found.memory_free) == (947732 * 1024, 600000 * 1024)
    assert (found.uptime, found.load, found.temperature) == (5123.11, 0.31, 51.5)
    assert found.throttled == ["under-voltage", "throttled", "under-voltage-before", "throttled-before"]
    flash = disk(root, tmp_path)
    assert (flash.life_used, flash.worn_out) == (30, False)
    assert 0 < (flash.free or 0) <= (flash.total or 0)


def test_a_machine_that_tells_nothing_is_no_reason_to_fail(tmp_path: Path) -> None:
    own, found, flash = process(tmp_path, None), machine(tmp_path), disk(tmp_path, tmp_path / "nowhere")
    for facts in (own, found, flash):
        assert {getattr(facts, name) for name in facts.__slots__} == {None}
    assert cpu_seconds(tmp_path) is None


def test_nonsense_is_not_passed_on(tmp_path: Path) -> None:
    root = put(
        tmp_path,
        {
            "proc/self/status": "VmRSS: a lot\nThreads\n",
            "proc/self/stat": "42 (python3) S 1\n",
            "proc/self/io": "write_bytes: -1\n",
            "proc/uptime": "\n",
            "proc/loadavg": "x\n",
            "sys/class/thermal/thermal_zone0/temp": "warm\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "zz\n",
            "sys/block/mmcblk0/device/life_time": "0x00 0xff\n",
        },
    )
    own, found = process(root, None), machine(root)
    assert (own.rss, own.threads, own.written, own.cpu_seconds) == (None,) * 4
    assert (found.uptime, found.load, found.temperature, found.throttled) == (None,) * 4
    assert disk(root, tmp_path).life_used is None


@pytest.mark.parametrize(
    ("life_time", "used", "end"), [("0x01 0x01", 10, "0x01"), ("0x0a 0x0b", 110, "0x03"), ("0x05 0x00", 50, "0x02")]
)
def test_the_worse_half_of_an_emmc_counts(tmp_path: Path, life_time: str, used: int, end: str) -> None:
    root = put(
        tmp_path,
        {"sys/block/mmcblk2/device/life_time": life_time, "sys/block/mmcblk2/device/pre_eol_info": end},
    )
    found = disk(root, tmp_path)
    assert (found.life_used, found.worn_out) == (used, end != "0x01")


@pytest.mark.parametrize(("alarm", "said"), [("0", []), ("1", ["under-voltage-before"])])
def test_where_the_firmware_is_not_asked_the_alarm_of_low_voltage_counts(
    tmp_path: Path, alarm: str, said: list[str]
) -> None:
    place = "sys/class/hwmon/hwmon1"
    root = put(tmp_path, {f"{place}/name": "rpi_volt\n", f"{place}/in0_lcrit_alarm": f"{alarm}\n"})
    assert machine(root).throttled == said


def test_this_machine_tells_of_this_process() -> None:
    own = process(Path("/"), None)
    assert (own.rss or 0) > 10 * 2**20
    assert (own.cpu_seconds or 0) > 0.1
    assert (own.files or 0) > 2
