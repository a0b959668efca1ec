"""The ASGI application: the site, with its workers inside."""

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

from jobify_django.asgi import lifespan

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

# The demo needs no server but itself, so it serves its own static files. A project that leaves those to a web
# server or to WhiteNoise writes lifespan(get_asgi_application()) and is done.
application = lifespan(ASGIStaticFilesHandler(get_asgi_application()))
