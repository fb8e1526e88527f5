"""The address of a Leshan server."""

import pytest

from devicehub.lwm2m.leshan.address import Address, InvalidAddress


def test_a_port_and_a_path_have_defaults():
    assert Address.parse("https://leshan.example.org/iot/") == Address(
        True, "leshan.example.org", 443, path="/iot"
    )
    assert str(Address.parse("http://[::1]:8080")) == "http://[::1]:8080"


def test_the_password_stands_in_no_text():
    address = Address.parse("https://hub@leshan.example.org", "correct horse")

    assert address.password == "correct horse"
    assert "correct" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    ("url", "password", "reason"),
    [
        ("leshan:8080", "", "not a URL"),
        ("coap://leshan", "", "not a URL"),
        ("http://", "", "not a URL"),
        ("http://leshan:x", "", "not a URL"),
        ("http://leshan:99999", "", "not a URL"),
        ("http://hub:secret@leshan", "", "DEVICEHUB_LESHAN_PASSWORD_FILE"),
        ("http://hub@leshan", "", "DEVICEHUB_LESHAN_PASSWORD is not set"),
        ("http://leshan", "secret", "names no user"),
        ("http://leshan/?ep=a", "", "more than"),
        ("http://leshan/a b", "", "more than"),
        ("http://leshan/\r\nX: y", "", "more than"),
    ],
)
def test_another_text_is_refused_without_its_password(url, password, reason):
    with pytest.raises(InvalidAddress, match=reason) as caught:
        Address.parse(url, password)

    assert "secret" not in str(caught.value)
