"""Django is set up once in a process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def set_up(directory: Path, items: int = 50) -> Any:
    """Make the shop's database in this directory, and return the application.

    Args:
        directory: Empty.
        items: How many are for sale.
    """
    os.environ["SHOP_DIRECTORY"] = str(directory)
    os.environ["DJANGO_SETTINGS_MODULE"] = "sites.shop.settings"
    import django

    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", run_syncdb=True, verbosity=0)
    from sites.shop.models import Item
    from sites.shop.wsgi import application

    Item.objects.bulk_create(Item(name=f"item {number}") for number in range(items))
    User.objects.create_user("ada", password="secret")
    (directory / "media").mkdir()
    (directory / "media" / "page.css").write_text("body { color: black }\n")
    connections.close_all()
    # They were read; programs that the tests start are to have their own.
    del os.environ["SHOP_DIRECTORY"], os.environ["DJANGO_SETTINGS_MODULE"]
    return application
