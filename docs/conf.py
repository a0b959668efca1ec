"""The documentation: Sphinx, Furo and MyST."""

from importlib.metadata import version as installed_version

import django
from django.conf import settings

# autodoc imports the package, and models need an app registry.
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "jobify_django"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()

project = "Jobify for Django"
author = "Jobify for Django contributors"
copyright = "2026, Jobify for Django contributors"
version = release = installed_version("jobify-django")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True  # UNSET, not <object object at 0x...>

html_theme = "furo"
html_title = "Jobify for Django"
html_theme_options = {  # each page leads to its source
    "source_repository": "https://github.com/jobify-django/jobify-django/",
    "source_branch": "main",
    "source_directory": "docs/",
}
