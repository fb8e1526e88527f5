"""The code of the page about a kind of your own is that of the heat meters, which the tests beside this one run."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/how-to/add-a-kind-of-your-own.md"
APP = ROOT / "tests/devicehub/kinds/heat"


def test_the_code_of_the_page_is_the_code_of_the_app():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    *models, admin = [block.strip() for block in blocks]
    written = (APP / "models.py").read_text().replace("tests.devicehub.kinds.heat", "heat")
    _, code = written.split('"""\n\n', 1)

    assert "\n\n\n".join(models) == code.strip()
    assert admin == (APP / "admin.py").read_text().strip()
