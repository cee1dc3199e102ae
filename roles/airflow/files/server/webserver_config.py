"""Read by Airflow's FAB auth manager: users are in its database, and a stranger may do nothing."""

from flask_appbuilder.const import AUTH_DB

AUTH_TYPE = AUTH_DB
AUTH_ROLE_PUBLIC = None
AUTH_USER_REGISTRATION = False
WTF_CSRF_ENABLED = True
