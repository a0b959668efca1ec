"""The demo's settings, under a strict content security policy."""

from project.settings import *  # noqa: F403
from project.settings import MIDDLEWARE

MIDDLEWARE = ["tests.browser.policy.strict", *MIDDLEWARE]
