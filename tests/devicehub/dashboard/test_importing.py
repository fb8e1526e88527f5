"""The pages that import devices: upload, columns, verdicts, and the file of credentials."""

from __future__ import annotations

import io
import json
import re
from datetime import timedelta

import openpyxl
import pytest
from django.apps import apps
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from authsvc.models import AuditEntry
from devicehub import roles
from devicehub.bulk import imports
from devicehub.dashboard import importing
from devicehub.models import DeviceImport, ImportPart, Rotation
from fleet.models import WeatherStationDevice
from rig.credential_pages import signed_in
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.pages]
START = "/devices/import/"
Stations = WeatherStationDevice.objects


@pytest.fixture
def operator() -> Client:
    return signed_in(person("olga", roles.OPERATOR, is_staff=True))


def upload(client: Client, content: bytes, name: str = "fleet.csv", start: str = START):
    return client.post(start, {"file": SimpleUploadedFile(name, content), "kind": "weatherstation"})


def create(client: Client, url: str, **fields):
    page = client.post(url, {"do": "create"}).content.decode()
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page))
    return client.post(url, hidden | {"confirmed": "yes", "file_format": "json"} | fields)


TABLE = b"device_id,name,site,floor\nA-1,Roof,north,3\nA-2,,south,\nA 3,,,\n"


def test_a_table_becomes_devices_with_credentials_once(operator):
    url = upload(operator, TABLE).headers["Location"]
    page = operator.get(url).content.decode()
    assert "Create 2 devices" in page
    assert "use 1-128 letters, digits" in page
    assert not Stations.exists()
    asked = operator.post(url, {"do": "create"}).content.decode()
    form = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', asked))
    form |= {"confirmed": "yes", "file_format": "json", "reason": "order 7"}

    answer = operator.post(url, form)

    assert "no-store" in answer.headers["Cache-Control"]
    issued = {found["device_id"]: found for found in json.loads(b"".join(answer.streaming_content))}
    assert issued.keys() == {"A-1", "A-2"}
    assert Stations.get(device_id="A-1").check_mqtt_password(issued["A-1"]["mqtt_password"])
    assert AuditEntry.objects.filter(action="device_created", actor="olga", reason="order 7").count() == 2
    assert operator.post(url, form).status_code == 200, "the page without a form: it is over"
    after = operator.get(url).content.decode()
    assert "2 devices created" in after
    assert issued["A-1"]["mqtt_password"] not in after
    assert "A-1" in operator.get(re.search(r'href="(/rotations/\d+/)"', after)[1]).content.decode()
    assert not ImportPart.objects.exists()


def test_a_table_without_device_ids_says_so(operator):
    page = operator.get(upload(operator, b"name,site\nRoof,north\n").headers["Location"]).content.decode()

    assert "No column holds the device ids." in page
    assert "Create" not in page


def test_an_xlsx_table_is_read(operator):
    book = openpyxl.Workbook()
    book.active.append(["Serial", "Label", "Location"])
    book.active.append(["X-1", "Säule", "north"])
    file = io.BytesIO()
    book.save(file)

    url = upload(operator, file.getvalue(), "fleet.xlsx").headers["Location"]

    assert DeviceImport.objects.get().counts == {"new": 1}
    b"".join(create(operator, url).streaming_content)
    assert Stations.get(device_id="X-1").name == "Säule"


def test_columns_are_mapped_and_checked_again(operator):
    url = upload(operator, b"what,who\nA-1,Roof\n").headers["Location"]
    page = operator.get(url).content.decode()
    assert 'name="column0"' in page

    wrong = operator.post(
        url, {"do": "check", "column0": "name", "column1": "name", "kind": "weatherstation"}
    )
    assert "The column device_id is missing" in wrong.content.decode()
    operator.post(url, {"do": "check", "column0": "device_id", "column1": "name", "kind": "weatherstation"})

    assert DeviceImport.objects.get().counts == {"new": 1}


def cells(page: str) -> list[list[str]]:
    """Return the texts of the cells of the preview, by row."""
    table = page[page.index('class="preview"') :]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    return [
        [re.sub(r"<[^>]*>", " ", cell).split() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]
        for row in rows
    ]


def test_sample_values_stand_beside_foreign_headings(operator):
    table = "id;Stockwerk;Kennwort;leer\n" + "".join(f"A-{n};{n // 2};geheim{n};\n" for n in range(9))

    page = operator.get(upload(operator, table.encode()).headers["Location"]).content.decode()

    assert "<code>A-0</code>, <code>A-1</code>, <code>A-2</code>" in page
    assert "<code>0</code>, <code>1</code>, <code>2</code>" in page, "each value once"
    assert "It is called like a secret" in page
    assert "geheim" not in page
    assert 'aria-describedby="id_column3_helptext"' in page
    assert "Its first rows are empty." in page


def test_a_long_sample_is_cut_and_escaped(operator):
    page = operator.get(
        upload(operator, b"id,note\nA-1,<b>" + b"x" * 500 + b"\n").headers["Location"]
    ).content.decode()

    assert "<code>&lt;b&gt;" + "x" * 20 + "…</code>" in page
    assert "x" * 51 not in page


def test_the_preview_shows_metadata_and_each_error_below_its_column(operator):
    operator = signed_in(person("mara", roles.OPERATOR, ["north"], is_staff=True))
    table = b'id,label,location,kind,floor\nA-1,Roof,north,,3\nA-2,,south,,\nA-3,,north,boat,\nA-4,,north,,"1\n2"\n'
    table += b"A 5,,,,\nA-6,,north,,,more\n"

    heads, *rows = cells(operator.get(upload(operator, table).headers["Location"]).content.decode())

    assert [" ".join(head) for head in heads] == [
        "Device id",
        "Line",
        "Verdict",
        "Type",
        "Name",
        "Site",
        "floor",
    ]
    found = {
        row[0][0]: {head[0]: " ".join(cell) for head, cell in zip(heads, row, strict=True)} for row in rows
    }
    assert found["A-1"]["floor"] == "3"
    assert found["A-2"]["Site"] == "south south is not one of your sites"
    assert found["A-3"]["Type"].startswith("– there is no device type")
    assert found["A-4"]["floor"] == "1 2 it holds a line break or another control character"
    assert found["A"]["Device"] == "A 5 use 1-128 letters, digits, _ : and -"
    assert found["A-4"]["Verdict"] == "Error in floor"
    assert found["A-3"]["Verdict"] == "Error in Type"
    assert found["A-6"]["Verdict"] == "Error there are more cells than the first line has names"
    assert {row["Name"] for row in found.values()} == {"Roof", "–"}


def test_an_error_of_metadata_stands_below_it_and_not_below_the_field_of_its_name(operator):
    table = b'id,label,name\nA-1,Roof,"a\nb"\n'

    heads, row = cells(operator.get(upload(operator, table).headers["Location"]).content.decode())

    assert heads[-1] == ["name"]
    assert (row[4], row[-1][:2]) == (["Roof"], ["a", "b"])
    assert len(row[-1]) > 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"PK\x03\x04", "not a whole XLSX file"),
        (b"device_id\n" + b"x" * 2000, "more than 1,000 characters"),
        (b"a\x00b", "NUL"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_the_form(operator, content, reason):
    answer = upload(operator, content)

    assert answer.status_code == 200
    assert reason in answer.content.decode()
    assert not DeviceImport.objects.exists()


def test_an_upload_that_is_too_large_is_stopped(operator, monkeypatch):
    monkeypatch.setattr(importing, "MAX_BYTES", 1_000)

    answer = upload(operator, b"device_id\n" + b"x\n" * 1_000)

    assert answer.status_code in (200, 400, 403)
    assert not DeviceImport.objects.exists()


def test_the_form_needs_its_token():
    client = Client(enforce_csrf_checks=True)
    client.force_login(person("olga", roles.OPERATOR, is_staff=True))

    assert upload(client, TABLE).status_code == 403
    assert not DeviceImport.objects.exists()


def test_a_large_number_is_typed(operator):
    rows = "".join(f"A-{number}\n" for number in range(12)).encode()
    url = upload(operator, b"device_id\n" + rows).headers["Location"]

    refused = create(operator, url, typed="11")

    assert "The number is not 12." in refused.content.decode()
    assert not Stations.exists()
    b"".join(create(operator, url, typed="12").streaming_content)
    assert Stations.count() == 12


def test_a_limited_operator_imports_into_their_sites(operator):
    northern = signed_in(person("mara", roles.OPERATOR, ["north"], is_staff=True))
    url = upload(northern, TABLE).headers["Location"]

    assert "south is not one of your sites" in northern.get(url).content.decode()
    b"".join(create(northern, url).streaming_content)

    assert [device.device_id for device in Stations.all()] == ["A-1"]


def test_limits_are_checked_again_when_the_devices_are_created(operator):
    """The person was limited to a site after the verdicts."""
    from devicehub.models import SiteScope

    mara = person("mara", roles.OPERATOR, is_staff=True)
    client = signed_in(mara)
    url = upload(client, TABLE).headers["Location"]
    SiteScope.objects.create(user=mara, sites=["north"])

    b"".join(create(client, url).streaming_content)

    assert [device.device_id for device in Stations.all()] == ["A-1"]


def test_an_upload_is_that_of_its_user(operator):
    url = upload(operator, TABLE).headers["Location"]
    other = signed_in(person("mara", roles.ADMINISTRATOR, is_staff=True))

    assert other.get(url).status_code == other.post(url, {"do": "create"}).status_code == 404
    assert other.get(url + "progress/").status_code == 404
    for role, status in ((roles.VIEWER, 403), (None, 403)):
        client = signed_in(person(f"v{role}", role, is_staff=True))
        assert client.get(START).status_code == upload(client, TABLE).status_code == status


def test_a_file_that_broke_off_is_said_and_continued(operator, monkeypatch):
    monkeypatch.setattr(imports, "BATCH", 2)
    rows = "".join(f"A-{number}\n" for number in range(5)).encode()
    url = upload(operator, b"device_id\n" + rows).headers["Location"]
    stream = iter(create(operator, url).streaming_content)
    next(stream)
    next(stream)
    assert operator.get(url + "progress/").json()["done"] == 2
    assert "data-progress" in operator.get(url).content.decode()
    for model in (DeviceImport, Rotation):
        model.objects.update(touched_at=timezone.now() - imports.PAUSE - timedelta(seconds=1))

    page = operator.get(url).content.decode()
    assert "The file broke off" in page
    assert "Create the rest" in page
    Rotation.objects.update(touched_at=timezone.now())
    assert create(operator, url).status_code == 302, "another file of these devices is being written"
    assert "Nothing to do" in operator.get(url).content.decode()
    Rotation.objects.update(written_at=timezone.now())
    rest = json.loads(b"".join(create(operator, url).streaming_content))

    assert [found["device_id"] for found in rest] == ["A-2", "A-3", "A-4"]


def test_a_table_is_discarded(operator):
    url = upload(operator, TABLE).headers["Location"]

    operator.post(url, {"do": "discard"})

    assert not ImportPart.objects.exists()


def test_the_admin_has_the_same_pages(operator):
    start = "/admin/devicehub/deviceimport/"
    assert operator.get(start).status_code == 200

    url = upload(operator, TABLE, start=start).headers["Location"]

    assert re.fullmatch(r"/admin/devicehub/deviceimport/\d+/change/", url)
    b"".join(create(operator, url).streaming_content)
    assert Stations.count() == 2
    assert operator.get(url.replace("change", "progress")).json()["over"]


def test_a_shown_password_is_nowhere_afterwards(operator, caplog):
    """Not in a table, the session and the admin log included, nor in the log, nor on a page."""
    url = upload(operator, TABLE).headers["Location"]
    issued = json.loads(b"".join(create(operator, url).streaming_content))
    secrets = [found[name] for found in issued for name in ("mqtt_password", "api_key")]

    stored = [repr(list(model._base_manager.values())) for model in apps.get_models()]
    pages = [operator.get(address).content.decode() for address in (url, "/rotations/", "/rotations/1/", "/")]

    assert len(secrets) == 4
    for text in (*stored, *pages, caplog.text, *operator.cookies.output().splitlines()):
        assert not any(secret in text for secret in secrets)
