"""A Django project with one application, both called shop."""
