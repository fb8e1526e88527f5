"""The browser of tests of pages."""

from rig.browser import browser as browser
