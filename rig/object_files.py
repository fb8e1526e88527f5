"""Files of LwM2M objects in the XML of the OMA registry, for tests."""

from __future__ import annotations

ITEM = """\
      <Item ID="5">
        <Name>Flow</Name>
        <Operations>R</Operations>
        <MultipleInstances>Single</MultipleInstances>
        <Mandatory>Mandatory</Mandatory>
        <Type>Float</Type>
        <RangeEnumeration>0..9</RangeEnumeration>
        <Units>/100</Units>
        <Description>The flow.</Description>
      </Item>
"""


def item(**changes: str) -> str:
    """Return a resource with other texts in the elements of these names."""
    text = ITEM
    for name, content in changes.items():
        start, end = f"<{name}>", f"</{name}>"
        above, _, rest = text.partition(start)
        text = above + start + content + end + rest.partition(end)[2]
    return text


def file(items: str = ITEM, *, comment: str = "", object_id: int = 33000, version: str = "1.1") -> bytes:
    """Return a file that defines an object, a pump, with *items*."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!-- {comment} -->
<LWM2M xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <Object ObjectType="MODefinition">
    <Name>Pump</Name>
    <Description1>Moves water.</Description1>
    <ObjectID>{object_id}</ObjectID>
    <ObjectURN>urn:oma:lwm2m:x:{object_id}:{version}</ObjectURN>
    <LWM2MVersion>1.0</LWM2MVersion>
    <ObjectVersion>{version}</ObjectVersion>
    <MultipleInstances>Multiple</MultipleInstances>
    <Mandatory>Optional</Mandatory>
    <Resources>
{items}    </Resources>
    <Description2></Description2>
  </Object>
</LWM2M>
""".encode()
