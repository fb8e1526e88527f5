"""The jars of Leshan: fetched from Maven Central once, checked by their SHA-256, and kept in a cache folder.

Tests with them are skipped where Java is not installed or a jar cannot be fetched, also with REQUIRE_REAL=1; the last
line of the run then names them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from rig.servers import MissingServer

SOURCES = Path(__file__).resolve().parent
CENTRAL = "https://repo.maven.apache.org/maven2"
MOST = 20 << 20  # bytes of a jar
SECONDS = 30.0
NO_REAL_LESHAN = "no real Leshan"
LESHAN, CALIFORNIUM, JACKSON = "org/eclipse/leshan", "org/eclipse/californium", "com/fasterxml/jackson/core"
# Group, artifact, version, and the SHA-256 of the jar.
LIBRARY = (
    (LESHAN, "leshan-client-cf", "2.0.0-M15", "1b4a1aec94d51513918dc49002613683bcbdef37d22e28930a59032bb321ff2f"),
    (LESHAN, "leshan-client-core", "2.0.0-M15", "36aebdfdc9b21e5814f934a13955a9dc2cc762024fbd8cba2cdafd4c88d00649"),
    (LESHAN, "leshan-core-cf", "2.0.0-M15", "1579d8c3deb98aff8c05323ae7b8a025f2b81a2d5a7c70a7bd7f2bc08c384f9d"),
    (LESHAN, "leshan-core", "2.0.0-M15", "148228b51e9ed1b58c8a632949b00b0cbc8e11cc19d4f4ab8a5ee3189a3b5eba"),
    (LESHAN, "leshan-server-cf", "2.0.0-M15", "99147b7e2aa41db2f1d4dce3d559bd5405dcf34c5e178ddb5f59bf60ca056b95"),
    (LESHAN, "leshan-server-core", "2.0.0-M15", "3d2b071bd48c04d7ec9fbe4b7e0084ced5b60d3b6f24eae603666364b731eb0b"),
    (CALIFORNIUM, "californium-core", "3.12.0", "78ebf471e34afb0564e496bb24dd039580fc77538a6373c5ba26744b6164baf0"),
    (CALIFORNIUM, "cf-oscore", "3.12.0", "5178163059a8456986f280fc16e8eb8a6b0e868fbc6d43ab25375a67e3a025f5"),
    (CALIFORNIUM, "element-connector", "3.12.0", "c07190c64a3574a75e2b8d3f3695ff68f541a1fa8b784df821268eb36a8fa5f7"),
    (CALIFORNIUM, "scandium", "3.12.0", "fce6185794127a79372c2aa6f26fb0231e4e8f58b3aec27973da0022e8b8babd"),
    (JACKSON, "jackson-annotations", "2.15.3", "aae865c3d88256d61b11523cb1e88bd48d5b9ad5855fa1fc859504fd2204708a"),
    (JACKSON, "jackson-core", "2.15.3", "51fab7aad51ed588482edc507fd542747936c5094d1ab76ed21ddb63b96b610d"),
    (JACKSON, "jackson-databind", "2.15.3", "c3c53333a2172a80678bda1803e39cff45bec6ae3e9c7d4f44a81ec4e2ab18dc"),
    ("com/github/peteroupc", "numbers", "1.8.2", "ed894dcb68b9aa22320d6813950d8321d4f82c2c78e68770a443df33e36bdd4e"),
    ("com/upokecenter", "cbor", "4.5.2", "1e6bbfdd11ac112bab6a9ad536135ff1c09b83a7af7ec0dd1c7052c9dc6f7c15"),
    ("org/slf4j", "slf4j-api", "1.7.36", "d3ef575e3e4979678dc01bf1dcce51021493b4d11fb7f1be8ad982877c16a1c0"),
)  # fmt: skip
DEMO_DIGEST = "6d1cf53a18d516f02ae0b7bc34dd06dac15f3d67797d163574dec4b5feecbd32"
DEMO = (LESHAN, "leshan-server-demo", "2.0.0-M4", DEMO_DIGEST)
DEMO_KIND = "-jar-with-dependencies"


class NoRealLeshan(MissingServer):
    """Java or a jar cannot be had here; the message says which."""

    def __init__(self, reason: str) -> None:
        Exception.__init__(self, f"{NO_REAL_LESHAN}: {reason}")


def java() -> str:
    """Return the path of Java. Raise NoRealLeshan."""
    return _program("java")


def classpath() -> str:
    """Return the classpath of the programs in this folder, after fetching and compiling. Raise NoRealLeshan."""
    java()
    jars = [str(_jar(*one)) for one in LIBRARY]
    return os.pathsep.join([str(_classes(jars)), *jars])


def demo_server() -> Path:
    """Return the jar of the demo server 2.0.0-M4. Raise NoRealLeshan."""
    return _jar(*DEMO, kind=DEMO_KIND)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NoRealLeshan(f"{name} is not installed (apt-get install default-jdk-headless)")
    return found


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base, "devicehub-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _jar(group: str, artifact: str, version: str, digest: str, kind: str = "") -> Path:
    """Return the path of a jar whose content is that of *digest*."""
    name = f"{artifact}-{version}{kind}.jar"
    kept = _cache() / name
    if kept.exists() and _digest(kept.read_bytes()) == digest:
        return kept
    content = _fetch(f"{CENTRAL}/{group}/{artifact}/{version}/{name}")
    if _digest(content) != digest:
        raise NoRealLeshan(f"{name} of Maven Central is not the file whose SHA-256 is known")
    with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as new:
        new.write(content)
    Path(new.name).replace(kept)  # Another process may do the same.
    return kept


def _fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            content: bytes = answer.read(MOST + 1)
    except OSError as error:
        raise NoRealLeshan(f"Maven Central does not answer ({error})") from error
    if len(content) > MOST:
        raise NoRealLeshan(f"{url} has more than {MOST} bytes")
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _classes(jars: Sequence[str]) -> Path:
    """Return the folder of the compiled programs; changed sources have another folder."""
    sources = sorted(SOURCES.glob("*.java"))
    digest = _digest(b"".join(source.read_bytes() for source in sources) + "".join(jars).encode())
    kept = _cache() / f"leshan-{digest[:16]}"
    if kept.exists():
        return kept
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        made = Path(folder, "classes")
        command = [_program("javac"), "-proc:none", "-d", str(made), "-cp", os.pathsep.join(jars)]
        done = subprocess.run([*command, *map(str, sources)], capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise AssertionError(done.stderr)
        try:
            made.rename(kept)
        except OSError:
            assert kept.exists(), "another process compiled it meanwhile"
    return kept
