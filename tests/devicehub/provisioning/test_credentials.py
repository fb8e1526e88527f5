"""The life of credentials: rotation with overlap, revocation, expiry, chosen and imported passwords."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone
from passlib.hash import (
    argon2,
    bcrypt,
    pbkdf2_sha256,
)

from authsvc import background
from authsvc.core import passwords
from authsvc.credentials import UNTIL_USED
from authsvc.logins import verifier
from authsvc.models import Account, Denial
from devicehub import provisioning
from devicehub.models import digest_api_key
from devicehub.provisioning import credentials_file
from fleet.models import WeatherStationDevice
from rig.cast import Cast
from rig.seeds import PASSWORD, SALT, b64, imported_hashes
from rig.servers import MissingServer, _program

HASHES = imported_hashes(PASSWORD)


@pytest.fixture
def login(ask: Callable[..., object]) -> Callable[..., bool]:
    """Return a function that tries a login and returns whether the service allows it."""

    def attempt(username: str, password: str, client_id: str | None = None) -> bool:
        reply = ask("go-auth/user", username=username, password=password, clientid=client_id or username)
        assert reply.status_code in (200, 403)
        return bool(reply.status_code == 200)

    return attempt


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def rotate(device: str, *options: str) -> dict[str, str]:
    return json.loads(run("rotate_credentials", "weatherstation", device, "--json", *options))


@pytest.mark.sqlite_only
@pytest.mark.parametrize("name", sorted(HASHES))
def test_a_hash_from_elsewhere_is_verified(name):
    stored = HASHES[name]

    assert name.startswith(passwords.scheme_of(stored).name)
    assert passwords.verify("s3cret +%41é", stored)
    assert not passwords.verify("s3cret +%41e", stored)
    assert not passwords.verify("", stored)


@pytest.mark.sqlite_only
@pytest.mark.parametrize("name", sorted(HASHES))
def test_a_hash_that_is_not_whole_is_unusable(name):
    """A cut hash may be valid if it is another whole hash of its scheme; then no other password matches it.

    go-auth's key may have any length from 16 bytes, and a shorter key is the beginning of a longer one.
    """
    stored = HASHES[name]
    for end in range(len(stored)):
        try:
            assert not passwords.verify("s3cret +%41e", stored[:end])
            assert not passwords.verify("s3cret +%41é", stored[:end]) or name.startswith("go-auth")
        except passwords.UnusableHash:
            continue


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "stored",
    [
        "",
        "plaintext",
        "!",
        "$1$abc$def",
        "$6$rounds=5000$abc$" + "x" * 86,  # It is crypt's sha512, which begins like a hash of mosquitto.
        bcrypt.using(rounds=4).hash("x").replace("$04$", "$15$"),
        pbkdf2_sha256.using(rounds=100).hash("x").replace("$100$", "$2000001$"),
        pbkdf2_sha256.using(rounds=100).hash("x").replace("$100$", "$0$"),
        pbkdf2_sha256.using(rounds=100).hash("x").replace("$100$", "$" + "9" * 5000 + "$"),
        argon2.using(type="ID", rounds=1, memory_cost=64).hash("x").replace("m=64", "m=4194304"),
        argon2.using(type="D", rounds=1, memory_cost=64).hash("x"),
        f"PBKDF2$md5$1${b64(SALT)}${b64(SALT)}{b64(SALT)}",
        HASHES["bcrypt"] + "\n",
    ],
    ids=itertools.count(),
)
def test_an_unknown_or_absurd_hash_is_unusable_before_any_work(stored):
    with pytest.raises(passwords.UnusableHash):
        passwords.scheme_of(stored)
    with pytest.raises(passwords.UnusableHash):
        passwords.verify("x", stored)


def test_an_unusable_hash_denies_with_its_own_reason(station, login, loop):
    WeatherStationDevice.objects.update(mqtt_password_hash="$9$what")

    assert not login(station.username, station.password)
    background.stop()

    assert [d.reason for d in Denial.objects.all()] == ["unusable_hash"]


def test_after_a_rotation_both_passwords_work_until_the_date(station: Cast, login):
    new = rotate("STATION-001", "--overlap", "1h")["mqtt_password"]
    assert login(station.username, new)
    assert login(station.username, station.password)

    WeatherStationDevice.objects.update(previous_valid_until=timezone.now() - timedelta(seconds=1))

    assert login(station.username, new)
    assert not login(station.username, station.password)


def test_a_rotation_without_overlap_ends_the_old_password_at_once(station: Cast, login):
    new = rotate("STATION-001", "--now")["mqtt_password"]

    assert login(station.username, new)
    assert not login(station.username, station.password)


def test_the_old_password_ends_when_the_new_one_is_first_used(station: Cast, login):
    new = rotate("STATION-001", "--until-used")["mqtt_password"]
    assert WeatherStationDevice.objects.get().previous_valid_until == UNTIL_USED
    assert login(station.username, station.password)
    background.stop()
    assert login(station.username, station.password), "the old one is used as often as the device likes"

    assert login(station.username, new)
    background.stop()

    assert not login(station.username, station.password)
    assert login(station.username, new)


def test_a_second_rotation_ends_what_the_first_one_kept(station: Cast, login):
    first = rotate("STATION-001")["mqtt_password"]
    second = rotate("STATION-001")["mqtt_password"]

    assert [login(station.username, p) for p in (station.password, first, second)] == [False, True, True]


def test_a_second_rotation_keeps_the_password_in_use(station: Cast, login):
    lost = rotate("STATION-001", "--until-used")["mqtt_password"]
    said = run("rotate_credentials", "weatherstation", "STATION-001", "--until-used")

    assert "The one in use ends when this one is first used. The last one, which was never used, has" in said
    assert [login(station.username, p) for p in (station.password, lost)] == [True, False]


def test_the_api_key_rotates_apart_from_the_password(station: Cast, login):
    key = rotate("STATION-001", "--api-key")["api_key"]

    device = WeatherStationDevice.objects.get()
    assert device.api_key == digest_api_key(key)
    assert key != station.api_key
    assert login(station.username, station.password)


def test_revoked_is_revoked_with_the_next_question(station: Cast, login, ask):
    run("revoke_credentials", "weatherstation", "STATION-001")

    assert not login(station.username, station.password)
    assert WeatherStationDevice.objects.get().api_key is None
    own = {"clientid": station.username, "topic": station.topic("data"), "acc": 2}
    assert ask("go-auth/acl", username=station.username, **own).status_code == 403, "also while connected"


def choose(device: Any) -> None:
    provisioning.choose_password(device, "a long enough one")


def rotate_later(row: Any) -> None:
    provisioning.rotate_password(row, valid_until=UNTIL_USED)


@pytest.mark.parametrize(
    "action",
    [choose, rotate_later, provisioning.rotate_api_key, provisioning.end_overlap],
    ids=lambda action: action.__name__,
)
def test_an_action_on_a_device_that_was_read_earlier_undoes_nothing(station: Cast, action):
    """The caller's instance gets the outcome. A revoked device has neither the old password nor the old API key."""
    provisioning.rotate_password(WeatherStationDevice.objects.get(), valid_until=UNTIL_USED)
    stale = WeatherStationDevice.objects.get()
    old = {stale.mqtt_password_hash, stale.previous_password_hash, stale.api_key}
    provisioning.revoke(WeatherStationDevice.objects.get())

    action(stale)

    now = WeatherStationDevice.objects.get()
    assert old.isdisjoint({now.mqtt_password_hash, now.previous_password_hash, now.api_key})
    copied = ("previous_password_hash", "previous_valid_until", "updated_at")
    assert [getattr(stale, name) for name in copied] == [getattr(now, name) for name in copied]


def test_an_action_waits_for_another_one_on_the_same_device(station: Cast):
    def rotate_from_elsewhere() -> None:
        try:
            provisioning.rotate_password(stale, valid_until=UNTIL_USED)
        finally:
            connection.close()

    stale = WeatherStationDevice.objects.get()
    thread = threading.Thread(target=rotate_from_elsewhere)
    with transaction.atomic():
        provisioning.revoke(WeatherStationDevice.objects.get())
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
    thread.join(10)

    now = WeatherStationDevice.objects.get()
    assert (now.api_key, now.previous_password_hash) == (None, "")
    assert now.mqtt_password_hash


def test_an_action_on_an_account_that_was_read_earlier_undoes_nothing(transactional_db):
    account, _ = provisioning.create_account("backend")
    stale = Account.objects.get()
    provisioning.revoke_account(account)

    provisioning.rotate_account(stale, valid_until=UNTIL_USED)

    now = Account.objects.get()
    assert (now.previous_password_hash, stale.previous_password_hash) == ("", "")
    assert stale.password_hash == now.password_hash != ""


def test_a_revocation_during_a_prompt_stays(station: Cast, monkeypatch):
    def typed() -> str:
        provisioning.revoke(WeatherStationDevice.objects.get())
        return "a long enough one"

    monkeypatch.setattr("devicehub.management.commands.rotate_credentials.read_password", typed)
    run("rotate_credentials", "weatherstation", "STATION-001", "--ask")

    assert WeatherStationDevice.objects.get().api_key is None


def test_an_overlap_revives_no_expired_password(station: Cast, login):
    WeatherStationDevice.objects.update(password_expires_at=timezone.now() - timedelta(seconds=1))

    new = rotate("STATION-001", "--overlap", "24h")["mqtt_password"]

    assert login(station.username, new)
    assert not login(station.username, station.password)


def test_an_overlap_ends_no_later_than_the_password_would_have(station: Cast):
    soon = timezone.now() + timedelta(minutes=5)
    WeatherStationDevice.objects.update(password_expires_at=soon)

    rotate("STATION-001", "--overlap", "24h")

    assert WeatherStationDevice.objects.get().previous_valid_until == soon


def test_an_old_file_undoes_no_rotation_and_no_revocation(tmp_path: Path, login):
    (tmp_path / "passwd").write_text(f"old-1:{HASHES['bcrypt']}\n")
    arguments = ["import_credentials", str(tmp_path / "passwd"), "--type", "weatherstation", "--apply"]
    run(*arguments)
    run("revoke_credentials", "weatherstation", "old-1")

    with pytest.raises(SystemExit):
        run(*arguments)
    assert not login("old-1", "s3cret +%41é")

    run(*arguments, "--replace")
    assert login("old-1", "s3cret +%41é")


@pytest.mark.parametrize("row", ["station-1", "new-1"])
def test_a_change_between_the_verdict_and_the_write_refuses_the_row(db, row):
    kind = provisioning.kind_of("weatherstation")
    WeatherStationDevice.objects.create(device_id="station-1")
    rows = credentials_file.read(f"{row}:{HASHES['bcrypt']}\n").rows
    credentials_file.judge(rows, kind)
    assert not rows[0].problem

    device, _ = WeatherStationDevice.objects.get_or_create(device_id=row)
    provisioning.rotate_password(device, valid_until=None)

    assert credentials_file.write(rows, kind) == 0
    assert rows[0].outcome == credentials_file.RowOutcome.REFUSED
    assert WeatherStationDevice.objects.get(device_id=row).mqtt_password_hash == device.mqtt_password_hash


def test_a_password_ends_with_its_date(station: Cast, login):
    WeatherStationDevice.objects.update(password_expires_at=timezone.now() + timedelta(minutes=1))
    assert login(station.username, station.password)

    WeatherStationDevice.objects.update(password_expires_at=timezone.now() - timedelta(seconds=1))

    assert not login(station.username, station.password)


@pytest.mark.parametrize("until", [UNTIL_USED, timezone.now() + timedelta(days=1)], ids=["used", "date"])
def test_an_expiry_that_is_set_during_an_overlap_ends_both_passwords(station: Cast, login, until):
    device = WeatherStationDevice.objects.get()
    new = provisioning.rotate_password(device, valid_until=until)
    provisioning.set_expiry(device, timezone.now() + timedelta(hours=1))
    assert login(station.username, station.password)
    assert device.has_overlap()

    provisioning.set_expiry(device, timezone.now() - timedelta(seconds=1))

    assert [login(station.username, p) for p in (station.password, new)] == [False, False]
    assert not device.has_overlap()


def test_a_previous_password_with_an_expiry_ends_at_the_first_use(station: Cast, login):
    device = WeatherStationDevice.objects.get()
    new = provisioning.rotate_password(device, valid_until=UNTIL_USED)
    provisioning.set_expiry(device, timezone.now() + timedelta(hours=1))
    assert login(station.username, new)
    background.stop()

    assert not login(station.username, station.password)


def test_a_chosen_password_is_kept_by_argon2id(station: Cast, login):
    provisioning.choose_password(station.device, "correct horse battery")

    assert WeatherStationDevice.objects.get().mqtt_password_hash.startswith("$argon2id$")
    assert login(station.username, "correct horse battery")
    assert not login(station.username, "correct horse batterx")
    with pytest.raises(ValueError, match="at least 12 characters"):
        provisioning.choose_password(station.device, "short")


def test_a_chosen_password_is_read_from_a_prompt_and_never_an_argument(station: Cast, login, monkeypatch):
    monkeypatch.setattr("sys.stdin", StringIO("correct horse battery\n"))
    run("rotate_credentials", "weatherstation", "STATION-001", "--ask")
    assert login(station.username, "correct horse battery")

    monkeypatch.setattr("sys.stdin", StringIO("short\n"))
    with pytest.raises(CommandError, match="at least 12 characters"):
        run("rotate_credentials", "weatherstation", "STATION-001", "--ask")
    assert login(station.username, "correct horse battery")


def test_an_account_may_have_a_chosen_password_too(login, monkeypatch, transactional_db):
    run("create_account", "backend")
    with pytest.raises(CommandError, match="--ask and --overlap need --rotate"):
        run("create_account", "other", "--ask")
    monkeypatch.setattr("sys.stdin", StringIO("correct horse battery\n"))

    run("create_account", "backend", "--rotate", "--ask")

    assert Account.objects.get(username="backend").password_hash.startswith("$argon2id$")
    assert login("backend", "correct horse battery")


def test_a_slow_hash_is_verified_once_for_each_password(station: Cast, login, monkeypatch):
    WeatherStationDevice.objects.update(mqtt_password_hash=imported_hashes("s3cret")["bcrypt"])
    done: list[str] = []
    real = passwords.verify

    def verify(secret: str, stored: str) -> bool:
        if stored != passwords.DUMMY_HASH:
            done.append(secret)
        return real(secret, stored)

    monkeypatch.setattr(passwords, "verify", verify)

    assert [login(station.username, p) for p in ("s3cret", "s3cret", "wrong", "wrong", "s3cret")] == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert done == ["s3cret", "wrong"], "each password costs one verification, right or wrong"
    assert "s3cret" not in repr(verifier._right)


def test_a_cached_password_ends_with_its_hash(station: Cast, login):
    WeatherStationDevice.objects.update(mqtt_password_hash=imported_hashes("s3cret")["bcrypt"])
    assert login(station.username, "s3cret")

    WeatherStationDevice.objects.update(mqtt_password_hash=imported_hashes("other")["bcrypt"])

    assert not login(station.username, "s3cret")


def test_an_imported_hash_is_upgraded_at_the_next_login(station: Cast, login, settings):
    settings.AUTHSVC_UPGRADE_HASHES = True
    strong, weak = "Q8z" * 4 + "kT2vLw0pXr9Y", "s3cret"
    stored = imported_hashes(strong)["mosquitto pbkdf2"]
    WeatherStationDevice.objects.update(mqtt_password_hash=stored)

    assert login(station.username, strong)
    background.stop()
    assert WeatherStationDevice.objects.get().mqtt_password_hash.startswith("{SSHA256}")
    assert login(station.username, strong)

    # A password that a person may have chosen keeps its slow hash.
    WeatherStationDevice.objects.update(mqtt_password_hash=imported_hashes(weak)["mosquitto pbkdf2"])
    assert login(station.username, weak)
    background.stop()
    assert WeatherStationDevice.objects.get().mqtt_password_hash.startswith("$7$")


def test_nothing_is_upgraded_unless_the_operator_says_so(station: Cast, login):
    WeatherStationDevice.objects.update(mqtt_password_hash=imported_hashes("x" * 30)["mosquitto pbkdf2"])

    assert login(station.username, "x" * 30)
    background.stop()

    assert WeatherStationDevice.objects.get().mqtt_password_hash.startswith("$7$")


def test_a_mosquitto_fleet_moves_over_without_touching_a_device(
    tmp_path: Path, login, needs_real: Callable[[MissingServer], None]
):
    """The real mosquitto_passwd makes the password file."""
    import subprocess

    try:
        program = str(Path(_program("mosquitto", package="mosquitto")).parent.parent / "bin/mosquitto_passwd")
    except MissingServer as missing:
        needs_real(missing)
    file = tmp_path / "passwd"
    file.touch()
    fleet = {f"old-{number}": f"pass {number}%" for number in range(3)}
    for username, password in fleet.items():
        subprocess.run([program, "-b", str(file), username, password], check=True, capture_output=True)

    shown = run("import_credentials", str(file), "--type", "weatherstation")
    assert "3 new, 0 changed, 0 same, 0 refused. Nothing was written" in shown
    assert not WeatherStationDevice.objects.exists()

    done = run("import_credentials", str(file), "--type", "weatherstation", "--apply")
    assert "3 devices written" in done
    for username, password in fleet.items():
        assert login(username, password), "as its username, which it also uses as client id"
        assert not login(username, password + "x")
    assert "0 new, 0 changed, 3 same" in run("import_credentials", str(file), "--type", "weatherstation")


def test_a_csv_names_devices_and_client_ids(tmp_path: Path, login):
    file = tmp_path / "fleet.csv"
    stored = HASHES["bcrypt"]
    file.write_text(f"username,hash,device_id,client_id\nst.1@plant,{stored},ST-1,radio 7\n")

    run("import_credentials", str(file), "--type", "weatherstation", "--apply")

    device = WeatherStationDevice.objects.get()
    assert (device.device_id, device.mqtt_username, device.mqtt_client_id) == (
        "ST-1",
        "st.1@plant",
        "radio 7",
    )
    assert login("st.1@plant", "s3cret +%41é", client_id="radio 7")
    assert not login("st.1@plant", "s3cret +%41é", client_id="radio 8")


def test_each_row_has_its_verdict_and_a_refused_one_harms_no_other(tmp_path: Path, station: Cast):
    Account.objects.create(username="ingest")
    good = HASHES["mosquitto pbkdf2"]
    lines = {
        "fine": good,
        "a/b": good,
        "guest": good,
        "st.1": good,
        "nohash": "",
        "plain": "s3cret",
        "cut": good[:-3],
        "costly": good.replace("$101$", "$99999999$"),
        "ingest": good,
        station.username: good,
        "twice": good,
    }
    text = "".join(f"{name}:{stored}\n" for name, stored in lines.items()) + f"# a comment\n\ntwice:{good}\n"
    (tmp_path / "passwd").write_text(text)

    out = StringIO()
    with pytest.raises(SystemExit) as end:
        call_command(
            "import_credentials",
            str(tmp_path / "passwd"),
            "--type",
            "weatherstation",
            "--apply",
            "--json",
            stdout=out,
        )

    assert end.value.code == 1, "some rows were refused"
    rows = json.loads(out.getvalue())
    names = [*lines, "", "", "twice"]  # One for each line of the file.
    problems = {names[row["line"] - 1]: row["problem"] for row in rows if row["verdict"] == "refused"}
    assert {row["username"] for row in rows if row["verdict"] == "new"} == {"fine", "twice"}
    assert "username is not" in problems["a/b"]
    assert "username is not" in problems["guest"]
    assert "give a column device_id" in problems["st.1"]
    assert problems["nohash"].startswith("there is no hash")
    assert "no accepted scheme, or is not complete" in problems["plain"]
    assert "no accepted scheme, or is not complete" in problems["cut"]
    assert "cost 99999999 is not in 1..2000000" in problems["costly"]
    assert "account ingest" in problems["ingest"]
    assert "has" in problems[station.username], "another device's username"
    assert problems["twice"] == "twice is in the file twice"
    assert "s3cret" not in out.getvalue()
    assert good not in out.getvalue()
    assert set(WeatherStationDevice.objects.values_list("device_id", flat=True)) == {
        "STATION-001",
        "fine",
        "twice",
    }


def test_go_auths_salts_as_text_are_taken_when_the_operator_says_so(tmp_path: Path, login):
    digest = hashlib.pbkdf2_hmac("sha512", b"s3cret", b"c2FsdHNhbHQ=", 101)
    (tmp_path / "passwd").write_text(f"ga-1:PBKDF2$sha512$101$c2FsdHNhbHQ=${b64(digest)}\n")

    run("import_credentials", str(tmp_path / "passwd"), "--type", "weatherstation", "--apply", "--utf8-salt")

    assert login("ga-1", "s3cret")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Each line must be username:hash"),
        (b"\xff\xfe", "cannot be read: it is not UTF-8"),
    ],
)
def test_a_file_that_is_none_is_refused_whole(tmp_path: Path, db, content, message):
    (tmp_path / "passwd").write_bytes(content)

    with pytest.raises(CommandError, match=message):
        run("import_credentials", str(tmp_path / "passwd"), "--type", "weatherstation")


def test_an_accounts_old_password_may_overlap(login, transactional_db):
    old = json.loads(run("create_account", "backend", "--json"))["password"]
    new = json.loads(run("create_account", "backend", "--rotate", "--overlap", "15m", "--json"))["password"]

    assert login("backend", new)
    assert login("backend", old)
    Account.objects.update(previous_valid_until=timezone.now() - timedelta(seconds=1))
    assert not login("backend", old)
    with pytest.raises(CommandError, match="--rotate changes only the password"):
        run("create_account", "backend", "--rotate", "--superuser")


def test_guesses_at_one_slow_hash_hold_up_nobody_else(loop, monkeypatch):
    """Two guesses run for one stored hash; a third is a fault at once, and the login of another name is not delayed."""
    held = threading.Event()
    real = passwords.verify

    def slow(secret: str, stored: str) -> bool:
        if stored == HASHES["bcrypt"]:
            held.wait(5)
        return real(secret, stored)

    monkeypatch.setattr(passwords, "verify", slow)
    monkeypatch.setattr(verifier, "_threads", ThreadPoolExecutor(4))

    def verify(password: str, stored: str) -> Coroutine[None, None, bool]:
        return verifier.Attempt(password).verify(password, stored)

    async def storm() -> list[object]:
        guesses = [asyncio.ensure_future(verify(f"guess {n}", HASHES["bcrypt"])) for n in range(20)]
        await asyncio.sleep(0.05)
        other = await verify("s3cret +%41é", HASHES["mosquitto pbkdf2"])
        held.set()
        return [other, *await asyncio.gather(*guesses, return_exceptions=True)]

    other, *guesses = loop.run(storm())

    assert other is True
    assert [type(g) for g in guesses].count(verifier.Overloaded) == 18
    assert guesses.count(False) == 2
    assert verifier._running == {}


def test_a_login_over_the_budget_is_a_fault_and_no_deny(station: Cast, ask, monkeypatch):
    WeatherStationDevice.objects.update(mqtt_password_hash=HASHES["bcrypt"])
    monkeypatch.setattr(verifier, "MAX_WAITING", 0)

    reply = ask("go-auth/user", username=station.username, clientid=station.username, password="anything")

    assert (reply.status_code, reply.json()["ok"]) == (503, False)


def test_who_is_revoked_while_a_slow_hash_is_computed_stays_out(station: Cast, login, monkeypatch):
    WeatherStationDevice.objects.update(mqtt_password_hash=imported_hashes("s3cret")["bcrypt"])
    real = passwords.verify

    def verify_and_disable(secret: str, stored: str) -> bool:
        if stored == passwords.DUMMY_HASH:
            return real(secret, stored)
        WeatherStationDevice.objects.update(is_active=False)
        connection.close()  # This thread opened it.
        return real(secret, stored)

    monkeypatch.setattr(passwords, "verify", verify_and_disable)

    assert not login(station.username, "s3cret")
