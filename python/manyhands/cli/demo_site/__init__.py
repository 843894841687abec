"""The Flask application of `manyhands demo`, for `manyhands serve manyhands.cli.demo_site:app`: see `site.py`."""

from manyhands.cli.demo_site.site import app as app

__all__ = ["app"]
