"""`edged profiles`: the device types that are known, and help for writing another."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edged import paths
from edged.cli import EXIT_PROBLEM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edged.config.library import Found
    from edged.config.problems import Problem

_HIDDEN = frozenset({"unit", "description"})
"""What a table of points has columns of its own for."""
_AROUND = frozenset({"points", "tests"})

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
config_option = click.option(
    "--config", "-c", type=click.Path(dir_okay=False), help="Configuration whose folder `profiles` is looked in, too."
)


@click.group(short_help="List the device types that are known; check a profile, begin one.")
def profiles() -> None:
    """List the device types that are known; check a profile, begin one.

    A profile is one device type as a YAML file. Those in the folder `profiles` beside the configuration come first,
    then those that the adapters bring.
    """


@profiles.command("list")
@click.argument("words", nargs=-1)
@json_option
@config_option
def list_(words: tuple[str, ...], as_json: bool, config: str | None) -> None:
    """List all profiles; with WORDS those that have them all in name, title, maker, models or adapter.

    Exit code 1 if there is none.
    """
    rows = [row for row in map(_row, _library(config)) if all(_has(row, word) for word in words)]
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        _table([(row["profile"], row["adapter"], row["title"], row["where"]) for row in rows])
    if not rows:
        click.echo(f"No profile has {' and '.join(words)}.", err=True)
        sys.exit(EXIT_PROBLEM)


@profiles.command()
@click.argument("profile")
@json_option
@config_option
def show(profile: str, as_json: bool, config: str | None) -> None:
    """Show what PROFILE, a name or a file, reads."""
    from edged.config.library import document
    from edged.config.nodes import plain

    found = _find(profile, config)
    tree, reader = document(found.file)
    if tree is None:
        _print_problems(reader.report.problems)
        sys.exit(EXIT_PROBLEM)
    content: dict[str, Any] = plain(tree)
    if "profile" not in content:
        raise click.UsageError(f"{found.file} is not a profile: it has no `profile:` with its name")
    if as_json:
        click.echo(json.dumps({**content, "file": str(found.file)}, indent=2, ensure_ascii=False))
        return
    for key in [key for key in content if key not in _AROUND]:
        click.echo(f"{key}: {_flat(content[key])}")
    click.echo(f"file: {found.file}\n")
    points = content.get("points")
    _table(
        [
            (
                name,
                _flat({key: one for key, one in point.items() if key not in _HIDDEN}),
                point.get("unit", ""),
                point.get("description", ""),
            )
            for name, point in (points if isinstance(points, dict) else {}).items()
            if isinstance(point, dict)
        ]
    )
    if not points:
        click.echo("The device, or the decoder, tells the points itself.")


@profiles.command()
@click.argument("profile", nargs=-1)
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings, too.")
@json_option
@config_option
def test(profile: tuple[str, ...], strict: bool, as_json: bool, config: str | None) -> None:
    """Check each PROFILE, a name or a file; without one, all.

    Runs its test vectors, and looks for units that nobody else uses and a missing source; in Modbus profiles also for
    registers that overlap, points that no vector tests and ranges that are impossible.

    Exit codes: 0 all is well; 1 something is wrong.
    """
    from edged.config.library import check

    chosen = [_find(one, config) for one in profile] or _library(config)
    checked = [(found, check(found).report.problems) for found in chosen]
    problems = [problem for _, found in checked for problem in found]
    if as_json:
        click.echo(
            json.dumps(
                [
                    {"profile": found.name, "file": str(found.file), "problems": [one.as_dict() for one in theirs]}
                    for found, theirs in checked
                ],
                indent=2,
                ensure_ascii=False,
            )
        )
    else:
        _print_problems(problems)
        bad = sum(any(problem.severity == "error" for problem in theirs) for _, theirs in checked)
        count = f"{len(checked)} profile{'s' if len(checked) != 1 else ''}"
        click.echo(f"{count}: " + (f"{bad} with errors" if bad else "no errors"))
    if any(strict or problem.severity == "error" for problem in problems):
        sys.exit(EXIT_PROBLEM)


@profiles.command()
@click.argument("name")
@click.option(
    "--adapter", default="modbus", show_default=True, help="The protocol of such devices: modbus, serial, ble or mqtt."
)
@click.option("--output", metavar="FILE", type=click.Path(dir_okay=False), help="Write there instead; `-` prints it.")
@config_option
def new(name: str, adapter: str, output: str | None, config: str | None) -> None:
    """Write a profile called NAME to begin with, its format explained in comments.

    It goes to the folder `profiles` beside the configuration, where a device with `profile: NAME` finds it.
    """
    from edged.config.library import Beginner, families
    from edged.config.secrets import SECRET_NAME

    if not SECRET_NAME.fullmatch(name):
        raise click.BadParameter(f"{name!r} is not a profile's name: letters, digits, `-`, `_` and `.`")
    kinds = {one.name: one.adapter for one in families()}
    beginner = kinds.get(adapter)
    if not isinstance(beginner, Beginner):
        known = ", ".join(kind for kind, one in kinds.items() if isinstance(one, Beginner)) or "none"
        raise click.BadParameter(f"{adapter!r} is none; there are: {known}", param_hint="--adapter")
    text = beginner.example_profile(name)
    if output == "-":
        click.echo(text, nl=False)
        return
    path = Path(output) if output else (_local(config) or Path("profiles")) / f"{name}.yaml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise click.UsageError(f"{path} exists already") from None
    except OSError as exc:
        raise click.UsageError(f"{path} cannot be written: {exc.strerror}") from None
    click.echo(f"{path}: fill it in, then `edged profiles test {path}`")


@profiles.command()
def schema() -> None:
    """Print the JSON Schema of profile files, for editors."""
    from edged.config.profile_schema import profile_schema

    click.echo(json.dumps(profile_schema(), indent=2, ensure_ascii=False))


# -- small things ------------------------------------------------------------------------------------------------------


def _local(config: str | None) -> Path | None:
    """The folder `profiles` beside the configuration, if there is a configuration."""
    from edged.config.source import home
    from edged.errors import ConfigError

    try:
        return home(paths.config_path(config)) / "profiles"
    except ConfigError:
        return None


def _library(config: str | None) -> list[Found]:
    from edged.config.library import library

    return library(_local(config))


def _find(profile: str, config: str | None) -> Found:
    """A profile by its name, or by its file."""
    from edged.config.library import Found
    from edged.config.problems import did_you_mean

    if "/" in profile or profile.endswith((".yaml", ".yml")):
        file = Path(profile)
        if not file.is_file():
            raise click.UsageError(f"there is no file {profile}")
        return Found(
            file.stem, file, next((one.family for one in _library(config) if one.file == file.resolve()), None)
        )
    everything = _library(config)
    for one in everything:
        if one.name == profile:
            return one
    hint = did_you_mean(profile, sorted({one.name for one in everything}), what="there are")
    raise click.UsageError(f"there is no profile {profile!r}; {hint}")


def _row(found: Found) -> dict[str, Any]:
    head = found.head()
    return {
        "profile": found.name,
        "adapter": found.family.name if found.family else "",
        "title": str(head.get("title", "")),
        "vendor": str(head.get("vendor", "")),
        "models": [str(one) for one in head.get("models") or ()],
        "source": str(head.get("source", "")),
        "where": "shipped" if found.family else "local",
        "file": str(found.file),
    }


def _has(row: dict[str, Any], word: str) -> bool:
    return (
        word.casefold()
        in " ".join([row["profile"], row["adapter"], row["title"], row["vendor"], *row["models"]]).casefold()
    )


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_nested(one)}" for key, one in value.items())
    return ", ".join(map(_nested, value)) if isinstance(value, list) else str(value)


def _nested(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return (
        f"{{{_flat(value)}}}"
        if isinstance(value, dict)
        else f"[{_flat(value)}]"
        if isinstance(value, list)
        else str(value)
    )


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_problems(problems: Sequence[Problem]) -> None:
    for problem in problems:
        click.echo(problem.render())
