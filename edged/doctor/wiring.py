"""What is wrong with a line, from what went over it. Pure: notes in, findings out.

The rules, each with its evidence. What is certain is told as certain, what is only likely as likely; and when nothing
fits, it says so rather than guess. What one cause explains is not told a second time as another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from edged.media.notes import FrameNote
from edged.media.settings import Parity
from edged.media.uart import Format, heard

_ENOUGH = 5
"""Fewer requests than that prove nothing."""
_TWICE = 2
_SOME = 3
_HALF = 0.5
_MOST = 0.7
_SMALL = 0.01
"""A smaller share of spoilt answers than that is the everyday life of a line."""
_PAUSE = 0.02
"""Seconds of silence inside an answer that no adapter makes by itself."""
_TIMER = (0.004, 0.02)
"""Pauses that the latency timer of a USB adapter makes, seconds."""
_BAUDRATES = (1200, 2400, 4800, 9600, 14400, 19200, 28800, 38400, 57600, 115200)
_PARITIES: tuple[Parity, ...] = ("none", "even", "odd")
_PROOF = 2
"""So many bytes, of different answers together, must be exactly what a wrong setting would make of the right ones."""


@dataclass(frozen=True, slots=True)
class LineFacts:
    """What is known about a line besides its frames."""

    baudrate: int = 0
    """0 for what is no serial line."""
    parity: Parity = "none"
    echo: bool = False
    """Our own bytes are expected to come back."""
    timeout: float = 1.0
    """The shortest time that a device on it is given to answer, seconds."""
    latency_ms: int | None = None
    """The latency timer of the USB adapter."""
    framing_errors: int = 0
    parity_errors: int = 0
    overruns: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a line, or that cannot be told."""

    code: str
    """For machines, such as `echo`; `not-sure` and `too-little` are no faults."""
    title: str
    evidence: str
    remedy: str = ""
    sure: bool = True


def classify(notes: Sequence[FrameNote], facts: LineFacts = LineFacts()) -> list[Finding]:
    """What is wrong, the most certain cause first; empty if all is well."""
    case = _Case(notes, facts)
    if case.requests < _ENOUGH:
        return [
            Finding(
                "too-little", "too little was sent to judge the line",
                f"{case.requests} requests, and {_ENOUGH} are needed", "let it poll for a while", sure=False,
            )
        ]  # fmt: skip
    findings = list(_echo(case))
    for rule in (_second_master, _twice, _late, _wrong_settings, _collisions, _damage, _silence, _garbage):
        found = list(rule(case))
        findings += found
        if found:
            break
    findings += _pauses(case)
    findings += _latency(case)
    if not findings and case.bad > case.requests * _SMALL and case.bad >= _SOME:
        findings.append(_not_sure(case))
    return findings


class _Case:
    """The notes of one line, counted."""

    def __init__(self, notes: Sequence[FrameNote], facts: LineFacts) -> None:
        self.notes, self.facts = notes, facts
        self.count = Counter(note.kind for note in notes)
        self.requests = self.count["request"]
        self.good = self.count["answer"] + self.count["refusal"]
        self.defects = Counter(note.defect for note in notes if note.defect)
        self.bad = self.count["damaged"] + self.count["noise"] + self.count["silence"]
        self.asked = {note.device for note in notes if note.kind == "request"}
        self.silent = Counter(note.device for note in notes if note.kind == "silence")
        self.answering = {note.device for note in notes if note.kind in {"answer", "refusal", "late", "damaged"}}

    def of(self, *kinds: str) -> Iterator[FrameNote]:
        return (note for note in self.notes if note.kind in kinds)


def _echo(case: _Case) -> Iterator[Finding]:
    count = case.count["echo"]
    if not case.facts.echo and count >= _SOME and count >= case.requests * _HALF:
        yield Finding(
            "echo", "the adapter hears what it sends itself",
            f"{count} of {case.requests} requests came back byte for byte",
            "write `echo: true` for the bus, or switch the adapter's receiver off while it sends",
        )  # fmt: skip


def _second_master(case: _Case) -> Iterator[Finding]:
    asking = [note for note in case.of("foreign") if "request" in note.error]
    if len(asking) >= _TWICE:
        texts = Counter(f"{note.device}, {note.text}" for note in asking)
        yield Finding(
            "second-master", "another master is on this line",
            f"{len(asking)} requests that are not ours, with right checksums, such as: {texts.most_common(1)[0][0]}",
            "disconnect the other master, or let it do the polling and forward; two masters garble each other's frames",
        )  # fmt: skip


def _twice(case: _Case) -> Iterator[Finding]:
    again = Counter(note.device for note in case.of("again"))
    if again.total() >= _TWICE:
        yield Finding(
            "duplicate-unit", f"two devices answer as {_some(again)}",
            f"{again.total()} requests were answered twice, each time with a right checksum",
            "give one of them another number; disconnect one of them to see which",
        )  # fmt: skip


def _collisions(case: _Case) -> Iterator[Finding]:
    """Answers that are longer than they can be: two at the same time."""
    longer = Counter(note.device for note in case.of("damaged") if note.defect == "long")
    if longer.total() >= _TWICE and longer.total() >= _HALF * case.count["damaged"]:
        yield Finding(
            "duplicate-unit", f"two devices seem to answer as {_some(longer)} at the same time",
            f"{longer.total()} answers begin rightly and are longer than any answer to the request can be",
            "disconnect one device after the other and see when it is good; then give one of the two another number",
            sure=False,
        )  # fmt: skip


def _late(case: _Case) -> Iterator[Finding]:
    limit = case.facts.timeout
    late = [note for note in case.notes if note.kind == "late" or (note.kind == "answer" and note.after > limit)]
    if len(late) >= _TWICE:
        longest = max(note.after for note in late)
        devices = Counter(note.device for note in late)
        yield Finding(
            "late", f"{_some(devices)} answers too late",
            f"{len(late)} answers came after they were given up, the latest {longest:.3g} s after the request",
            f"raise `timeout` of these devices above {longest * 1.5:.2g}s",
        )  # fmt: skip


def _wrong_settings(case: _Case) -> Iterator[Finding]:
    garbage = [note for note in case.of("noise") if note.defect == "unknown" and note.expected]
    if len(garbage) < _SOME or len(garbage) < _HALF * case.bad:
        return
    facts = case.facts
    votes: Counter[tuple[str, str]] = Counter()
    proofs: dict[tuple[str, str], set[bytes]] = {}
    for note in garbage:
        for cause, foretold in _explanations(note, facts):
            votes[cause] += 1
            proofs.setdefault(cause, set()).add(foretold)
    for cause, foretold_bytes in proofs.items():
        if sum(map(len, foretold_bytes)) < _PROOF:
            del votes[cause]
    if votes and votes.most_common(1)[0][1] >= _MOST * len(garbage):
        (code, what), count = votes.most_common(1)[0]
        rivals = [cause for cause, votes_for in votes.items() if votes_for == count]
        evidence = f"{count} of {len(garbage)} garbled answers begin exactly as the right ones would if {what}"
        found = _setting(code, what, evidence)
        if len(rivals) > 1:
            others = " or ".join(text for _, text in rivals)
            same = code if len({one for one, _ in rivals}) == 1 else "wrong-settings"
            found = replace(found, code=same, title=f"wrong settings: {others}", sure=False)
        yield found


def _garbage(case: _Case) -> Iterator[Finding]:
    """Answers come, and nothing can be made of any."""
    if case.good or case.count["damaged"] or case.count["noise"] < _SOME:
        return
    yield Finding(
        "wrong-settings", "baudrate, parity or stop bits seem wrong, or A and B are swapped",
        f"{case.count['noise']} answers came, and none could be read{_errors(case.facts)}",
        "compare baudrate, parity and stop bits with the device's menu; then swap A and B", sure=False,
    )  # fmt: skip


def _explanations(note: FrameNote, facts: LineFacts) -> Iterator[tuple[tuple[str, str], bytes]]:
    """What would make of the right answer exactly what came, and how much of it that foretells."""
    ours = Format(facts.baudrate or 9600, facts.parity)
    causes = {("swapped", "A and B are swapped"): Format(ours.baudrate, ours.parity, inverted=True)}
    for parity in _PARITIES:
        if parity != ours.parity:
            causes["wrong-parity", f"the device sends with parity {parity}"] = Format(ours.baudrate, parity)
    for baudrate in _BAUDRATES:
        if baudrate != ours.baudrate:
            causes["wrong-baud", f"the device sends at {baudrate} baud"] = Format(baudrate, ours.parity)
    for cause, sent in causes.items():
        foretold = heard(note.expected, sent, ours, goes_on=True)
        if foretold and note.frame.data.startswith(foretold):
            yield cause, foretold


def _silence(case: _Case) -> Iterator[Finding]:
    silent = {device for device in case.silent if device not in case.answering and case.silent[device] >= _TWICE}
    if not silent:
        return
    if silent >= case.asked and not case.count["noise"]:
        yield Finding(
            "silence", "nobody answers at all",
            f"{case.silent.total()} requests to {_some(Counter(silent))}, and not a single byte came back",
            "is the device on, are A and B not swapped, do baudrate, parity and unit number agree with its menu? "
            "The bytes themselves cannot tell, since there are none",
        )  # fmt: skip
    elif case.good:
        yield Finding(
            "silence", f"{_some(Counter(silent))} never answers, while others do",
            f"{sum(case.silent[device] for device in silent)} requests to it without a byte in return",
            "the line itself is good: check that device's power, its unit number and its own terminals",
        )  # fmt: skip


def _damage(case: _Case) -> Iterator[Finding]:
    """Bytes that are wrong, missing or too many in answers that are otherwise to be recognised."""
    groups = {
        "noise": case.defects["garbled"] + case.defects["inserted"],
        "cut-off": case.defects["cut"],
        "lost-bytes": case.defects["short"],
        "stray-before": case.defects["before"],
        "stray-after": case.defects["after"],
    }
    total = sum(groups.values())
    if total < _TWICE or total < _SMALL * case.requests:
        return
    code = max(groups, key=lambda name: groups[name])
    share = groups[code] / total
    title, remedy = _DAMAGE[code]
    others = ", ".join(f"{count} × {name}" for name, count in groups.items() if count and name != code)
    yield Finding(
        code, title,
        f"{groups[code]} of {case.requests} answers{f' (and {others})' if others else ''}{_errors(case.facts)}",
        remedy, sure=share >= _MOST and total >= _SOME,
    )  # fmt: skip


_DAMAGE = {
    "noise": (
        "noise on the line changes bytes",
        (
            "use twisted and shielded cable away from motors and inverters, terminate both ends with 120 Ω, connect "
            "the grounds, try a lower baudrate"
        ),
    ),
    "cut-off": (
        "answers lose their end",
        (
            "the adapter or a repeater switches direction too early, or two devices' grounds differ; with `rs485: rts` "
            "try a longer `rs485_after`"
        ),
    ),
    "lost-bytes": (
        "bytes are lost on the way",
        "an overrun in the adapter or a bad contact: use another USB port or adapter, tighten the terminals",
    ),
    "stray-before": (
        "stray bytes before the answers, as on a line that floats or reflects when its direction turns",
        "terminate both ends with 120 Ω, and give the line a bias (fail-safe) at one place",
    ),
    "stray-after": (
        "stray bytes after the answers, as on a line that floats or reflects when a device lets go of it",
        "terminate both ends with 120 Ω, and give the line a bias (fail-safe) at one place",
    ),
}


def _pauses(case: _Case) -> Iterator[Finding]:
    gaps = [note.gap for note in case.of("answer") if note.gap > _PAUSE]
    if len(gaps) >= _SOME and len(gaps) >= _HALF * case.count["answer"]:
        yield Finding(
            "pauses", "answers pause in the middle",
            f"{len(gaps)} of {case.count['answer']} answers, for up to {1000 * max(gaps):.0f} ms",
            "a converter or radio link on the way splits frames; set its packing time below 1.5 characters. "
            "edged puts the pieces together, but strict devices on the line will not",
        )  # fmt: skip


def _latency(case: _Case) -> Iterator[Finding]:
    latency = case.facts.latency_ms
    if latency is not None and latency > 1:
        low, high = _TIMER
        seen = sum(low < note.gap <= high for note in case.of("answer"))
        yield Finding(
            "latency-timer", f"the USB adapter holds bytes back for up to {latency} ms",
            f"its latency timer is {latency} ms" + (f"; {seen} answers came with such a pause" if seen else ""),
            "leave `low_latency: true`, and let the service write the adapter's latency_timer (a udev rule), or "
            "echo 1 > /sys/bus/usb-serial/devices/ttyUSB0/latency_timer",
        )  # fmt: skip


def _not_sure(case: _Case) -> Finding:
    kinds = ", ".join(f"{count} × {name}" for name, count in (case.count + case.defects).items() if count)
    return Finding(
        "not-sure", "something is wrong, and the bytes do not tell what",
        f"{case.bad} of {case.requests} requests went wrong ({kinds}){_errors(case.facts)}",
        "look at the frames with `edged trace`; take devices off the line one by one", sure=False,
    )  # fmt: skip


def _setting(code: str, what: str, evidence: str) -> Finding:
    if code == "swapped":
        return Finding(code, "A and B are swapped", evidence, "swap the two wires at the adapter")
    if code == "wrong-baud":
        return Finding(
            code, f"wrong baudrate: {what}", evidence, "set the bus's `baudrate` to it, or the device's menu"
        )
    return Finding(code, f"wrong parity: {what}", evidence, "set the bus's `parity` to it, or the device's menu")


def _errors(facts: LineFacts) -> str:
    counts = {"framing": facts.framing_errors, "parity": facts.parity_errors, "overrun": facts.overruns}
    told = ", ".join(f"{count} {name} errors" for name, count in counts.items() if count)
    return f"; the UART counted {told}" if told else ""


def _some(devices: Iterable[str]) -> str:
    names = sorted(devices)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")  # noqa: PLR2004  # a few
