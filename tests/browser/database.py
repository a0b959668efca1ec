"""Make the demo's database as ``make demo`` does, add staff of lesser rights, and print their sessions."""

import json

from project.demo import prepare

STAFF = {"viewer": ["view_queue", "view_job"], "nobody": []}


def main() -> None:
    prepare()

    from django.contrib.auth.models import Permission, User
    from django.test import Client

    for name, permissions in STAFF.items():
        user = User.objects.create_user(name, is_staff=True)
        user.user_permissions.set(
            Permission.objects.filter(content_type__app_label="jobify_django", codename__in=permissions)
        )
    sessions = {}
    for user in User.objects.all():
        client = Client()
        client.force_login(user)
        sessions[user.username] = client.cookies["sessionid"].value
    print(json.dumps(sessions))


if __name__ == "__main__":
    main()
