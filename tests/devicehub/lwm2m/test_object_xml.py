"""Object definitions in XML, as the OMA registry and vendors write them, and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehub.lwm2m import object_xml
from devicehub.lwm2m.object_xml import InvalidObjectXml, parse
from devicehub.messages.lwm2m.values import DataType
from rig.fuzzed import quick
from rig.object_files import ITEM, file, item

pytestmark = pytest.mark.sqlite_only


def refusal(content: bytes) -> str:
    with pytest.raises(InvalidObjectXml) as refused:
        parse(content)
    return str(refused.value)


def test_a_file_defines_an_object_with_all_of_its_parts():
    [found] = parse(file(comment="BSD-3 Clause License\n\nRedistribution is fine."), "from a test")

    assert found._replace(resources=()) == (
        *(33000, "1.1", "Pump", "Moves water.", "urn:oma:lwm2m:x:33000:1.1", "1.0", True, False, ()),
        "from a test",
        "BSD-3 Clause License\n\nRedistribution is fine.",
    )
    assert found.resources == ((5, "Flow", DataType.FLOAT, "R", False, True, "0..9", "/100", "The flow."),)


def test_byte_order_mark_cdata_and_stray_blanks_do_not_matter():
    plain = file()
    odd = (
        plain.replace(b"Moves water.", b"<![CDATA[\n\t\tMoves water.\t\n]]>")
        .replace(b">Float<", b"> Float\n\t<")
        .replace(b">33000<", b">\n 33000 <")
        .replace(b'ID="5"', b'ID=" 5 "')
        .replace(b">R<", b"> r <")
        .replace(b">Single<", b">\tsingle <")
        .replace(b">/100<", b"> /100\t<")
    )

    assert parse(odd) == parse(plain)
    assert parse(b"\xef\xbb\xbf" + plain) == parse(plain)
    assert parse(b"\r\n\xef\xbb\xbf \n" + plain) == parse(plain)
    assert parse(plain.decode().replace('"UTF-8"', '"UTF-16"').encode("utf-16")) == parse(plain)


def test_a_namespace_and_markup_in_a_description_do_not_matter():
    content = (
        file().replace(b"<LWM2M", b'<LWM2M xmlns="urn:x"', 1).replace(b"Moves water.", b"Moves <b>water</b>.")
    )

    assert parse(content) == parse(file())


@pytest.mark.parametrize("kind", DataType)
def test_each_type_is_read_in_any_case(kind):
    for written in (kind, kind.upper(), kind.replace(" ", "")):
        [found] = parse(file(item(Type=written)))
        assert found.resources[0].type is kind


@pytest.mark.parametrize(
    ("written", "read"),
    [("R", "R"), ("W", "W"), ("RW", "RW"), ("R W", "RW"), ("R,W", "RW"), ("R/W", "RW"), ("", "")],
)
def test_each_operation_is_read(written, read):
    assert parse(file(item(Operations=written)))[0].resources[0].operations == read


@pytest.mark.parametrize("written", ["", "None", "Opaque"])
def test_an_executable_resource_has_no_type(written):
    [found] = parse(file(item(Operations="E", Type=written)))

    assert (found.resources[0].operations, found.resources[0].type) == ("E", None)


def test_any_range_is_kept_as_it_is_written():
    ranges = ("<7 to >12.5", "9..1", "8 bit", "0: off 1: on", "..", "1.." + "9" * 200, "0^99..1", "ON;OFF")
    for written in ranges:
        escaped = written.replace("<", "&lt;")
        [found] = parse(file(item(RangeEnumeration=escaped)))
        assert found.resources[0].range == written


def test_a_version_comes_from_its_element_or_the_urn_or_is_the_first():
    def version(content: bytes) -> str:
        return parse(content)[0].version

    without = file().replace(b"<ObjectVersion>1.1</ObjectVersion>", b"")

    assert version(file().replace(b">1.1<", b"> 2.0\n<")) == "2.0"
    assert version(file().replace(b">1.1<", b">2<")) == "2.0"
    assert version(without) == "1.1"
    assert version(without.replace(b":33000:1.1", b":33000")) == "1.0"


def test_a_file_may_hold_several_objects_and_several_versions_of_one():
    one = file()
    start, end = one.index(b"<Object "), one.index(b"</LWM2M>")
    newer = one[start:end].replace(b">1.1<", b">1.2<")
    other = one[start:end].replace(b">33000<", b">33001<")

    found = parse(one[:end] + newer + other + one[end:])

    assert [definition.key for definition in found] == [(33000, "1.1"), (33000, "1.2"), (33001, "1.1")]


def test_the_id_of_a_resource_may_stand_in_an_element():
    content = file(ITEM.replace(' ID="5"', "").replace("<Name>", "<ResourceID>5</ResourceID><Name>"))

    assert parse(content)[0].resources[0].resource_id == 5
    assert parse(file().replace(b' ID="5"', b' id="5"'))[0].resources[0].resource_id == 5


def test_a_resource_without_a_type_by_mistake_has_none():
    """Object 10482 of the registry has one that can be read."""
    assert parse(file(item(Type="")))[0].resources[0].type is None


def test_long_texts_are_cut_and_the_lines_of_a_description_stay_lines():
    long = item(Description="\n\t0:  off\n\n\t1: on  " + "x" * 30_000, Name="x" * 300, Units="x" * 300)
    [resource] = parse(file(long.replace("0..9", "0.." + "9" * 300)))[0].resources

    assert resource.description.startswith("0: off\n\n1: on xxx")
    assert len(resource.description) == object_xml.LONGEST_TEXT
    assert (len(resource.name), len(resource.unit), len(resource.range)) == (255, 64, 255)


REFUSED = {
    b"": "the file is not XML: no element found: line 1, column 0",
    b"not xml": "the file is not XML: syntax error: line 1, column 0",
    b"<html><body/></html>": "the root element is 'html', not LWM2M",
    b"<LWM2M/>": "the file defines no object",
    file(item(Type="Double")): "object 33000, resource 5: 'Double' is not a type of LwM2M",
    file(item(Operations="X")): "object 33000, resource 5: 'X' is none of R, W, RW and E",
    file(item(MultipleInstances="")): (
        "object 33000, resource 5: MultipleInstances is empty, not Multiple or Single"
    ),
    file(item(Mandatory="yes")): "object 33000, resource 5: Mandatory is 'yes', not Mandatory or Optional",
    file(item(Name="")): "object 33000, resource 5 has no name",
    b"<LWM2M><Object><Item ID='5'/></Object></LWM2M>": "the file defines no object",
    file(ITEM + ITEM): "object 33000 has resource 5 twice",
    file(ITEM + item(Operations="E", Type="")): "object 33000 has resource 5 twice",
    file(ITEM.replace('"5"', '"65535"')): (
        "object 33000: the id of a resource is '65535', not a number from 0 to 65534"
    ),
    file(
        ITEM.replace('"5"', '"-1"')
    ): "object 33000: the id of a resource is '-1', not a number from 0 to 65534",
    file(ITEM.replace('"5"', '"\u0665"')): (
        "object 33000: the id of a resource is '\u0665', not a number from 0 to 65534"
    ),
    file(
        ITEM.replace(' ID="5"', "")
    ): "object 33000: the id of a resource is empty, not a number from 0 to 65534",
    file().replace(b">33000<", b">99999<"): "the id of the object is '99999', not a number from 0 to 65534",
    file().replace(b">1.1<", b">one<"): "object 33000: 'one' is not a version such as 1.1",
    file().replace(b"Resources>", b"Things>"): "object 33000 has no element Resources",
}


def test_other_files_are_refused_with_the_reason_in_one_line():
    found = {}
    for content in REFUSED:
        try:
            found[content] = parse(content)
        except InvalidObjectXml as error:
            found[content] = str(error)

    assert found == REFUSED


@pytest.mark.parametrize("length", [1, 40, 300, 800, len(file()) - 2])
def test_a_truncated_file_is_refused(length):
    assert refusal(file()[:length]).startswith("the file is not XML: ")


def test_two_definitions_of_one_object_in_one_version_are_refused():
    one = file()
    start, end = one.index(b"<Object "), one.index(b"</LWM2M>")

    assert (
        refusal(one[:end] + one[start:end] + one[end:]) == "the file defines an object in one version twice"
    )


def test_files_beyond_the_limits_are_refused():
    start, end = b"<LWM2M>", b"</LWM2M>"
    items = "".join(ITEM.replace('"5"', f'"{number}"') for number in range(1001))

    assert refusal(file() + b" " * object_xml.MAX_BYTES) == "the file has more than 2097152 bytes"
    assert refusal(b"<a>" * 100_000) == "elements are nested more than 32 deep"
    assert (
        refusal(start + b"<Object><ObjectID/></Object>" * 65 + end) == "the file defines more than 64 objects"
    )
    assert refusal(file(items)) == "object 33000 has more than 1000 resources"


@pytest.mark.parametrize(
    "declared",
    [
        b"<!DOCTYPE LWM2M>",
        b'<!DOCTYPE LWM2M SYSTEM "http://127.0.0.1/x.dtd">',
        b'<!DOCTYPE LWM2M [<!ENTITY a "b">]>',
        b'<!DOCTYPE LWM2M [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        b'<!DOCTYPE LWM2M [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>',
    ],
)
def test_document_types_and_entities_are_refused(declared):
    content = file().replace(b"<LWM2M", declared + b"<LWM2M", 1).replace(b"Moves water.", b"&a;")

    assert refusal(content) == "the file declares a document type or entities, which are refused"


@pytest.mark.parametrize("encoding", ["x-unknown", "utf-7", "idna", "rot13", "utf-32", "base64", ""])
def test_an_encoding_that_cannot_be_read_is_refused(encoding):
    assert refusal(file().replace(b"UTF-8", encoding.encode())).startswith("the file is not XML")


PARTS = st.sampled_from(
    [
        *(
            b"<",
            b">",
            b"/",
            b"&",
            b"&#0;",
            b"&#xD800;",
            b"<![CDATA[",
            b"]]>",
            b"<!--",
            b"-->",
            b"<!DOCTYPE a>",
        ),
        *(
            b"<Item>",
            b"</Item>",
            b"<Object>",
            b"</Object>",
            b"<LWM2M>",
            b"\x00",
            b"\xff",
            b"\xef\xbb\xbf",
            b"\xd9\xa1",
        ),
    ]
)


@given(st.data())
@quick
def test_a_changed_file_is_read_or_refused(data):
    content = file(comment="BSD")
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = min(len(content), start + data.draw(st.sampled_from([0, 1, 7, 300])))
        content = content[:start] + data.draw(st.one_of(PARTS, st.binary(max_size=6))) + content[end:]

    try:
        parse(content)
    except InvalidObjectXml as error:
        reason = str(error)
    else:
        reason = ""
    assert not {"\n", "\x00"} & set(reason)
