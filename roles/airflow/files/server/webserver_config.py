"""Read by Airflow's FAB auth manager: users are in its database, and a stranger may do nothing."""

from pathlib import Path

from flask import current_app
from flask_appbuilder.const import AUTH_DB

AUTH_TYPE = AUTH_DB
AUTH_ROLE_PUBLIC = None
AUTH_USER_REGISTRATION = False
WTF_CSRF_ENABLED = True

if Path("/run/secrets/proxy_token").exists():
    import proxy_users

    proxy_users.on_pages(current_app)
