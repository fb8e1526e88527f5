"""The check of a page in a browser by axe-core: labels, contrast, roles, structure."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.base import AXE_SCRIPT

SERIOUS = ("serious", "critical")
LOOKS = (("light", 1280), ("dark", 1280), ("light", 390))


def problems(page: Any, impacts: tuple[str, ...] = SERIOUS, outside: str = "") -> list[str]:
    """Return the findings of *impacts* on *page*, each with the first element that has it.

    *outside* is a selector of elements that are left out with all that they hold.
    """
    page.evaluate(AXE_SCRIPT)  # The policy of the page does not apply to evaluate().
    found = page.evaluate(
        "outside => axe.run({exclude: outside ? [[outside]] : []}, {resultTypes: ['violations']})", outside
    )
    return [
        f"{one['id']} ({one['impact']}): {one['nodes'][0]['html']} {one['nodes'][0].get('failureSummary', '')}"
        for one in found["violations"]
        if one["impact"] in impacts
    ]


def problems_in_every_look(page: Any, outside: str = "") -> list[str]:
    """Return the findings on *page* in light, in dark and at 390 px, and whether it is wider than the window.

    *outside* is that of problems().
    """
    found = []
    for scheme, width in LOOKS:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"width": width, "height": 900})
        found += [f"{page.url} {scheme} {width}: {problem}" for problem in problems(page, outside=outside)]
        if (actual := page.evaluate("document.documentElement.scrollWidth")) > width:
            found.append(f"{page.url} is {actual} px wide in a window of {width}")
    return found
