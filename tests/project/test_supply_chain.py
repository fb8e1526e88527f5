"""All downloads of set-up and images are fixed: by version, by hash, and by digest if that is resolved."""

from __future__ import annotations

import base64
import datetime
import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rig import servers
from rig.hub import ROOT
from rig.servers import MissingServer

pytestmark = pytest.mark.sqlite_only
LISTS = ROOT / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


def entries(name: str) -> list[Requirement]:
    """Return the requirements of a list; each must have a hash."""
    found = []
    for line in (LISTS / f"{name}.txt").read_text().replace("\\\n", " ").splitlines():
        text, *digests = line.split("--hash=sha256:")
        assert digests, f"{name}.txt: {text} has no hash"
        assert all(re.fullmatch("[0-9a-f]{64}", digest.strip()) for digest in digests), text
        found.append(Requirement(text))
    return found


@pytest.mark.parametrize("name", sorted(path.stem for path in LISTS.glob("*.txt")))
def test_a_list_has_one_version_and_hashes_of_each_package(name):
    found = entries(name)

    assert all(re.fullmatch(r"==[^*,]+", str(entry.specifier)) for entry in found)
    assert all(entry.url is None for entry in found)
    names = [canonicalize_name(entry.name) for entry in found]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("name", "extras"), [("core", []), ("demo", ["demo"]), ("dev", ["demo", "dev"])])
def test_a_list_has_what_the_project_declares(name, extras):
    pins = {canonicalize_name(entry.name): str(entry.specifier)[2:] for entry in entries(name)}
    declared = [
        *PROJECT["dependencies"],
        *(text for e in extras for text in PROJECT["optional-dependencies"][e]),
    ]

    for requirement in map(Requirement, declared):
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in {name}.txt: run script/lock"
        assert version in requirement.specifier, f"{requirement} is not met by {version}: run script/lock"


def test_the_smaller_lists_have_the_versions_of_the_larger():
    core, demo, dev = ({e.name: str(e.specifier) for e in entries(name)} for name in ("core", "demo", "dev"))

    assert core.items() <= demo.items() <= dev.items()


def test_what_builds_the_c_parser_is_listed():
    assert [entry.name for entry in entries("parser")] == ["gunicorn-h1c"]
    assert {"setuptools", "wheel"} <= {entry.name for entry in entries("build")}


@pytest.mark.servers
def test_set_up_takes_no_file_whose_hash_is_not_listed(tmp_path):
    """pip gets the options of script/setup, and a list with another hash."""
    options = re.search(r"-m pip install (--.*) \"\$@\"", (ROOT / "script" / "setup").read_text())
    assert options
    folder = tmp_path / "files"
    folder.mkdir()
    wheel = folder / "thing-1.0-py3-none-any.whl"
    wheel.write_bytes(b"not what was published")
    listed = tmp_path / "list.txt"
    listed.write_text(f"thing==1.0 --hash=sha256:{hashlib.sha256(b'published').hexdigest()}\n")

    pip = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", *options[1].split(), "--dry-run", "--no-index"),
            *(f"--find-links={folder}", f"--requirement={listed}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert pip.returncode != 0
    assert "DO NOT MATCH THE HASHES" in pip.stderr


def images() -> list[str]:
    """Return the images that the Docker files name."""
    dockerfile = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values()
    return dockerfile + [service["image"] for service in services if "build" not in service]


def test_images_have_a_full_version_and_a_digest_only_if_it_is_whole():
    found = images()

    assert len(found) >= 4
    for image in found:
        assert re.fullmatch(r"[a-z0-9./-]+:[\w.-]*\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", image), image


class Login(http.server.BaseHTTPRequestHandler):
    """Gives every client a signed token for reading, like Docker Hub."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def do_GET(self) -> None:
        """Send a token for the wanted scope."""
        query = parse_qs(urlsplit(self.path).query)
        kind, name, actions = query["scope"][0].split(":")
        now = datetime.datetime.now(datetime.UTC)
        claims = {
            "iss": "login",
            "sub": "",
            "aud": query["service"][0],
            "exp": now + datetime.timedelta(minutes=5),
            "nbf": now - datetime.timedelta(minutes=1),
            "iat": now,
            "jti": "1",
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        chain = [base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()]
        body = json.dumps({"token": jwt.encode(claims, self.key, "ES256", headers={"x5c": chain})}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Return a self-signed certificate of *key*."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "login")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    day = datetime.timedelta(days=1)
    builder = builder.not_valid_before(now - day).not_valid_after(now + day)
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(
        key, hashes.SHA256()
    )


@pytest.fixture
def login() -> Iterator[http.server.HTTPServer]:
    """Run the login of the registry."""
    Login.key = ec.generate_private_key(ec.SECP256R1())
    Login.certificate = certificate(Login.key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Login)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def registry(tmp_path, login, needs_real: Callable[[MissingServer], None]) -> Iterator[str]:
    """Run a real registry that needs a token, and yield its host and port."""
    try:
        program = servers._program("docker-registry", package="docker-registry")
    except MissingServer as missing:
        needs_real(missing)
    bundle = tmp_path / "login.pem"
    bundle.write_bytes(Login.certificate.public_bytes(serialization.Encoding.PEM))
    port = servers.free_port()
    realm = f"http://127.0.0.1:{login.server_address[1]}/token"
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "images")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        "auth": {
            "token": {"realm": realm, "service": "here", "issuer": "login", "rootcertbundle": str(bundle)}
        },
    }
    file = tmp_path / "registry.yml"
    file.write_text(yaml.safe_dump(config))
    with servers.process(
        [str(program), "serve", str(file)],
        env={"PATH": servers.SEARCH_PATH},
        log=tmp_path / "registry.log",
        ready=lambda: servers.accepts(port),
    ):
        yield f"127.0.0.1:{port}"


def call(url: str, method: str, body: bytes, **headers: str) -> str:
    """Send a request, and return the Location of the answer."""
    request = urllib.request.Request(
        url, body, {k.replace("_", "-"): v for k, v in headers.items()}, method=method
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.headers.get("Location", ""))


def push(registry: str, login: http.server.HTTPServer, name: str, tag: str) -> str:
    """Put an image of one empty layer into *registry* and return its digest."""
    scope = f"repository:{name}:pull,push"
    realm = f"http://127.0.0.1:{login.server_address[1]}/token?service=here&scope={scope}"
    with urllib.request.urlopen(realm, timeout=10) as answer:
        bearer = f"Bearer {json.load(answer)['token']}"
    blob = b"{}"
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    where = call(f"http://{registry}/v2/{name}/blobs/uploads/", "POST", b"", Authorization=bearer)
    call(
        f"{where}&digest={digest}",
        "PUT",
        blob,
        Authorization=bearer,
        Content_Type="application/octet-stream",
    )
    part = {
        "mediaType": "application/vnd.docker.container.image.v1+json",
        "size": len(blob),
        "digest": digest,
    }
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": part, "layers": []}
    ).encode()
    call(
        f"http://{registry}/v2/{name}/manifests/{tag}",
        "PUT",
        manifest,
        Authorization=bearer,
        Content_Type=MANIFEST_TYPE,
    )
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def pin(*files: Path) -> subprocess.CompletedProcess[str]:
    """Run `script/pin-images` on *files*."""
    return subprocess.run(
        [sys.executable, ROOT / "script" / "pin-images", *files], capture_output=True, text=True, check=False
    )


@pytest.mark.servers
def test_an_image_is_pinned_to_the_digest_that_its_registry_gives(tmp_path, registry, login):
    digest = push(registry, login, "team/hub", "1.2.3")
    dockerfile, compose = tmp_path / "Dockerfile", tmp_path / "compose.yml"
    dockerfile.write_text(f"FROM {registry}/team/hub:1.2.3 AS build\nRUN true\nFROM build\n")
    compose.write_text(
        f"services:\n  a:\n    image: {registry}/team/hub:1.2.3@sha256:{'0' * 64}\n  b:\n    image: devicehub\n"
    )

    done = pin(dockerfile, compose)

    assert (done.returncode, done.stderr) == (0, "")
    pinned = f"{registry}/team/hub:1.2.3@{digest}"
    assert dockerfile.read_text() == f"FROM {pinned} AS build\nRUN true\nFROM build\n"
    assert compose.read_text() == f"services:\n  a:\n    image: {pinned}\n  b:\n    image: devicehub\n"


@pytest.mark.servers
def test_an_image_that_is_not_resolved_is_named_and_left_alone(tmp_path, registry, login):
    digest = push(registry, login, "team/hub", "1.2.3")
    away = f"127.0.0.1:{servers.free_port()}/team/hub:1.0.0"
    unknown = f"{registry}/team/hub:9.9.9"
    compose = tmp_path / "compose.yml"
    compose.write_text(f"image: {registry}/team/hub:1.2.3\nimage: {away}\nimage: {unknown}\n")

    done = pin(compose)

    assert done.returncode == 1
    assert f"{away} was not resolved" in done.stderr
    assert f"{unknown} was not resolved" in done.stderr
    assert (
        compose.read_text() == f"image: {registry}/team/hub:1.2.3@{digest}\nimage: {away}\nimage: {unknown}\n"
    )
