"""What a project's ``asgi.py`` holds."""

import os

from django.core.asgi import get_asgi_application

from jobify_django.asgi import lifespan

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.servers.settings")

application = lifespan(get_asgi_application())
