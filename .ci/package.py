"""Builds what edged is shipped as: `package.py deb | bundle` (make deb, make bundle).

The .deb carries a virtual environment under /usr/lib/edged/package: the wheels that requirements.lock names,
byte-compiled. What runs is a copy of it (hard links) under /usr/lib/edged/releases, made when it is installed, so that
several releases lie side by side. It is put together by pip for the target, not run there, so that one machine builds
for all architectures; nothing is compiled. It is tied to one minor version of Python, that of the interpreter which
runs this: Debian 12 has 3.11, Debian 13 has 3.13.
"""

from __future__ import annotations

import argparse
import compileall
import gzip
import hashlib
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from email.utils import formatdate
from importlib.metadata import Distribution, distribution
from pathlib import Path

from licences import NEVER_LOADED, closure
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from requirements import entries

from edged import __version__
from edged.buffer.store import FORMAT
from edged.cli.system_files import place

ROOT = Path(__file__).parents[1]
HOME = "usr/lib/edged"
"""Where all releases lie on the target, below /: see edged/upgrade.py."""
EXTRAS = ("meters", "sunspec", "ble-decoders", "codecs")
"""What a gateway in the field may need. Not `demo`: its broker is a toy."""
WITHOUT = {("ble-decoders", "armhf"), ("codecs", "armhf"), ("meters", "armhf")}
"""They need cryptography, quickjs-ng and pycryptodome, which offer no wheel for 32-bit ARM."""
LEFT_OUT = NEVER_LOADED | {"pip"}
"""`pip` is there for a command of sqlite-utils that installs plug-ins."""
MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l"}
GLIBC = {"3.11": 36, "3.13": 41}
"""Python minor → the glibc 2.x of the Debian that has it."""
DEBIAN = {"3.11": "deb12", "3.13": "deb13"}
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PLACES = {path.name: place(path.name, packaged=True) for path in sorted((ROOT / "systemd").iterdir())}


def run(*command: str | Path, **environment: str) -> None:
    """Run a program; what it says is for whoever started us."""
    subprocess.run(command, check=True, env={**os.environ, **environment})


def epoch() -> int:
    """The time that everything in a package bears: that of the last commit, so that two builds yield the same bytes."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    log = [shutil.which("git") or "git", "log", "-1", "--format=%ct"]
    result = subprocess.run(log, cwd=ROOT, check=False, capture_output=True, text=True)  # an archive has no history
    return int(result.stdout or (ROOT / "requirements.lock").stat().st_mtime)


def requirements(arch: str = "amd64") -> list[str]:
    """Everything that edged needs at run time there, at the versions of the lock."""
    extras = [extra for extra in EXTRAS if (extra, arch) not in WITHOUT]
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    pinned = dict(re.findall(r"^([a-z0-9.-]+)==([^ ;\\]+)", lock, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    optional = project["optional-dependencies"]
    needed: dict[str, Distribution] = {}
    for text in [*project["dependencies"], *(text for extra in extras for text in optional[extra])]:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate():
            key = canonicalize_name(requirement.name)
            needed[key] = distribution(key)
            closure(key, frozenset(requirement.extras), needed)
    for name in sorted(needed.keys() - pinned.keys()):
        print(f"{name} is not in requirements.lock: taking the version that is installed here", file=sys.stderr)
    return [
        f"{name}=={pinned.get(name, dist.version)}" for name, dist in sorted(needed.items()) if name not in LEFT_OUT
    ]


def platforms(arch: str, python: str = PYTHON) -> list[str]:
    """The tags of wheels that run there, for pip."""
    machine = MACHINES[arch]
    newest = GLIBC.get(python, max(GLIBC.values()))
    return [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(newest, 16, -1)] + [
        f"--platform=manylinux2014_{machine}", f"--platform=linux_{machine}"
    ]  # fmt: skip


def own_wheel(folder: Path) -> Path:
    """Build edged itself."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, SOURCE_DATE_EPOCH=str(epoch()))
    return next(folder.glob("edged-*.whl"))


def fetch(arch: str, folder: Path, wheels: Path | None) -> None:
    """All wheels for the target, ours too. Where a package has no wheel for it, its pure Python is built."""
    folder.mkdir(parents=True, exist_ok=True)
    own_wheel(folder)
    source = ["--no-index", f"--find-links={wheels}"] if wheels else []
    target = [*platforms(arch), f"--python-version={PYTHON}", "--implementation=cp", "--only-binary=:all:"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    command = [*pip, "download", "--no-deps", *source, "-d", str(folder), *target]
    with tempfile.TemporaryDirectory() as name:
        listed = hashed(requirements(arch), Path(name) / "all.txt")
        if subprocess.run([*command, "-r", listed], check=False, stderr=subprocess.DEVNULL).returncode == 0:
            return
        for requirement in requirements(arch):
            listed = hashed([requirement], Path(name) / "one.txt")
            if subprocess.run([*command, "-r", listed], check=False, stderr=subprocess.DEVNULL).returncode:
                build_pure(requirement, listed, folder, source)


def hashed(wanted: list[str], file: Path) -> Path:
    """A file with these requirements for pip, and the hashes that the lock has for them."""
    lock = entries()
    # What the lock does not have yet was said, and pip would take it only if nothing had a hash.
    whole = all(one.partition("==")[0] in lock for one in wanted)
    file.write_text("\n".join(lock[one.partition("==")[0]] if whole else one for one in wanted) + "\n", "utf-8")
    return file


def build_pure(requirement: str, listed: Path, folder: Path, source: list[str]) -> None:
    """A wheel without compiled parts, where the package offers that (SKIP_CYTHON and its like are their own words)."""
    switches = {"SKIP_CYTHON": "1", "AIOHTTP_NO_EXTENSIONS": "1", "MULTIDICT_NO_EXTENSIONS": "1", "CC": "false"}
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "wheel", "--no-deps"]
        command += ["--no-cache-dir", *source, f"--no-binary={requirement.partition('==')[0]}", "-w", name]
        command += ["-r", str(listed)]
        if subprocess.run(command, check=False, env={**os.environ, **switches}).returncode:
            raise SystemExit(f"{requirement} offers neither a wheel for the target nor one without compiled parts")
        (built,) = Path(name).glob("*.whl")
        with zipfile.ZipFile(built) as wheel:
            compiled = [member for member in wheel.namelist() if member.endswith(".so")]
        if compiled:
            raise SystemExit(f"{requirement} has no wheel for the target, and compiles for this machine only")
        # Some build tools name the machine although nothing in the wheel is for one; pip goes by the name.
        package, version, *_ = built.name.split("-")
        shutil.copy(built, folder / f"{package}-{version}-py3-none-any.whl")


# -- the .deb ----------------------------------------------------------------------------------------------------------


def environment(stage: Path, arch: str, wheels: Path, version: str) -> str:
    """Lay out the virtual environment as it will lie on the target; returns the name of the release."""
    home = stage / HOME / "package"
    site = home / f"lib/python{PYTHON}/site-packages"
    site.mkdir(parents=True)
    run(
        sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install", "--no-index", "--no-deps",
        "--no-compile", "--no-warn-script-location", f"--target={site}", *platforms(arch),
        f"--python-version={PYTHON}", "--implementation=cp", "--only-binary=:all:", *sorted(wheels.glob("*.whl")),
    )  # fmt: skip
    shutil.rmtree(site / "bin", ignore_errors=True)
    for data in ("share", "lib", "include", "etc"):  # what wheels want outside of site-packages
        if data == "share" and (site / data / "edged").is_dir():
            shutil.copytree(site / data / "edged", home / "share/edged")
        if not (site / data / "__init__.py").exists():
            shutil.rmtree(site / data, ignore_errors=True)
    for useless in [path for kind in ("tests", "*.c", "*.h", "*.pyi", "*.pyx") for path in site.rglob(kind)]:
        shutil.rmtree(useless) if useless.is_dir() else useless.unlink(missing_ok=True)
    (home / "bin").mkdir()
    (home / "bin/python3").symlink_to(f"/usr/bin/python{PYTHON}")
    (home / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {PYTHON}\n", "ascii"
    )
    release = f"{version}-{fingerprint(home)}"
    place = f"/{HOME}/releases/{release}"
    (home / "release.json").write_text(json.dumps({"name": release, "version": version}) + "\n", "ascii")
    script = home / "bin/edged"
    # -I: neither the caller's folder nor his PYTHONPATH may change what runs as a service, or as root.
    code = "import sys\n\nfrom edged.cli import main\n\nsys.exit(main())\n"
    script.write_text(f"#!{place}/bin/python3 -I\n{code}", "ascii")
    script.chmod(0o755)
    (stage / "usr/bin").mkdir()
    (stage / "usr/bin/edged").symlink_to("../lib/edged/current/bin/edged")
    compileall.compile_dir(
        site, quiet=2, workers=0, stripdir=str(home), prependdir=place,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )  # fmt: skip
    return release


def fingerprint(folder: Path) -> str:
    """Eight digits that another content would not have, so that two builds of one version can lie side by side."""
    content = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:8]


def system_files(stage: Path, version: str) -> None:
    """Units, rules, configuration, documentation. Each release has the units too, for when it is gone back to."""
    for name, path in PLACES.items():
        (stage / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "systemd" / name, stage / path)
    (stage / "etc/edged/conf.d").mkdir(parents=True)
    shutil.copy(ROOT / "config/edged.yaml", stage / "etc/edged/edged.yaml")
    doc = stage / "usr/share/doc/edged"
    doc.mkdir(parents=True)
    (doc / "copyright").write_text(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: edged\n\n"
        "Files: *\nCopyright: 2026 The edged authors\nLicense: Apache-2.0\n\nLicense: Apache-2.0\n"
        " On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.\n"
        "Comment:\n The Python libraries below /usr/lib/edged have licences of their own, which stand in their\n"
        " .dist-info folders; sbom.cdx.json names them.\n",
        "utf-8",
    )
    shutil.copy(ROOT / "CHANGELOG.md", doc / "NEWS.md")
    entry = (
        f"edged ({version}) stable; urgency=medium\n\n  * See NEWS.md.\n\n"
        f" -- The edged authors <edged@example.org>  {formatdate(epoch())}\n"
    )
    for name, text in (("changelog", entry.encode()), ("NEWS.md", (doc / "NEWS.md").read_bytes())):
        (doc / name).unlink(missing_ok=True)
        (doc / f"{name}.gz").write_bytes(gzip.compress(text, 9, mtime=0))
    manuals = stage / "usr/share/man/man1"
    manuals.mkdir(parents=True)
    made = Path(tempfile.mkdtemp(dir=stage.parent))
    for script, target in (("sbom.py", doc / "sbom.cdx.json"), ("manual.py", manuals / "edged.1")):
        run(sys.executable, ROOT / ".ci" / script, made / target.name, SOURCE_DATE_EPOCH=str(epoch()))
        packed = gzip.compress((made / target.name).read_bytes(), 9, mtime=0)
        target.with_name(f"{target.name}.gz").write_bytes(packed)
    overrides = stage / "usr/share/lintian/overrides"
    overrides.mkdir(parents=True)
    shutil.copy(ROOT / ".ci/debian/lintian-overrides", overrides / "edged")


def control_files(stage: Path, arch: str, version: str, release: str) -> None:
    """What dpkg reads."""
    folder = stage / "DEBIAN"
    folder.mkdir()
    files = sorted(path for path in stage.rglob("*") if path.is_file() and not path.is_symlink())
    size = sum((path.stat().st_size + 1023) // 1024 for path in files)
    template = (ROOT / ".ci/debian/control").read_text("utf-8")
    glibc = f"2.{GLIBC.get(PYTHON, 36)}"
    (folder / "control").write_text(
        template.format(version=version, arch=arch, size=size, python=PYTHON, glibc=glibc), "utf-8"
    )
    (folder / "conffiles").write_text("/etc/edged/edged.yaml\n", "ascii")
    lines = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(stage)}"
        for path in files
    ]
    (folder / "md5sums").write_text("\n".join(lines) + "\n", "utf-8")
    for script in ("preinst", "postinst", "prerm", "postrm"):
        text = (ROOT / ".ci/debian" / script).read_text("utf-8")
        for word, value in (("@RELEASE@", release), ("@VERSION@", version), ("@FORMAT@", str(FORMAT))):
            text = text.replace(word, value)
        (folder / script).write_text(text, "utf-8")


def settle(stage: Path) -> None:
    """The same modes and times whoever builds."""
    for path in [stage, *stage.rglob("*")]:
        if path.is_symlink():
            continue
        runs = path.is_dir() or (path.parent.name in ("bin", "DEBIAN") and path.read_bytes()[:2] == b"#!")
        path.chmod(0o755 if runs else 0o644)
    for path in [*stage.rglob("*"), stage]:
        os.utime(path, (epoch(), epoch()), follow_symlinks=False)


def deb(arch: str, out: Path, wheels: Path | None) -> Path:
    """Build one .deb."""
    version = f"{__version__}+{DEBIAN.get(PYTHON, 'py' + PYTHON.replace('.', ''))}"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        stage = Path(name) / "stage"
        stage.mkdir()
        fetch(arch, Path(name) / "wheels", wheels)
        release = environment(stage, arch, Path(name) / "wheels", version)
        system_files(stage, version)
        control_files(stage, arch, version, release)
        settle(stage)
        package = out / f"edged_{version}_{arch}.deb"
        run("dpkg-deb", "--root-owner-group", "-Zxz", "-z4", "--build", stage, package, SOURCE_DATE_EPOCH=str(epoch()))
    return package


# -- the folder of wheels ----------------------------------------------------------------------------------------------


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same owner and time whoever builds."""
    info.mtime, info.uid, info.gid, info.uname, info.gname = epoch(), 0, 0, "root", "root"
    return info


def bundle(arch: str, out: Path, wheels: Path | None) -> Path:
    """Build an archive of wheels with a script that installs them, for sites without the internet."""
    name = f"edged-{__version__}-py{PYTHON.replace('.', '')}-{MACHINES[arch]}"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / name
        fetch(arch, folder / "wheels", wheels)
        wheels_here = sorted((folder / "wheels").iterdir())
        sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  wheels/{path.name}\n" for path in wheels_here]
        release = f"{__version__}-{hashlib.sha256(''.join(sums).encode()).hexdigest()[:8]}"
        script = folder / "install"
        text = (ROOT / ".ci/bundle-install").read_text("utf-8")
        text = text.replace("@PYTHON@", PYTHON).replace("@RELEASE@", release).replace("@VERSION@", __version__)
        script.write_text(text, "utf-8")
        script.chmod(0o755)
        (folder / "SHA256SUMS").write_text("".join(sums), "ascii")
        archive = out / f"{name}.tar.gz"
        with (
            archive.open("wb") as file,
            gzip.GzipFile("", "wb", mtime=epoch(), fileobj=file) as packed,
            tarfile.open(fileobj=packed, mode="w") as tar,
        ):
            for path in [folder / "SHA256SUMS", folder / "install", *wheels_here]:
                tar.add(path, f"{name}/{path.relative_to(folder)}", filter=_plain)
    return archive


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("deb", "bundle"))
    parser.add_argument("--arch", choices=MACHINES, default=None, help="[default: this machine's]")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--wheels", type=Path, help="take everything from this folder; use no network")
    given = parser.parse_args()
    arch = given.arch or next(arch for arch, machine in MACHINES.items() if machine == os.uname().machine)
    build = deb if given.kind == "deb" else bundle
    result = build(arch, given.out, given.wheels)
    print(f"{result} ({result.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
