"""Read by JupyterLab when it starts; the token is in the file that JUPYTER_TOKEN_FILE names."""

import os
from typing import Any

from traitlets.config import get_config

c = get_config()


def without_token(_handler: object, page: dict[str, Any]) -> dict[str, Any]:
    """Leave the token out of pages: their own requests have the cookie, which no script reads."""
    return {**page, "token": ""}


c.ServerApp.tornado_settings = {"page_config_hook": without_token}

c.ServerApp.ip = "0.0.0.0"  # noqa: S104 - the container's own network; the host publishes what it is told to
c.ServerApp.port = 8888
c.ServerApp.port_retries = 0
c.ServerApp.base_url = os.environ["JUPYTER_BASE_URL"]
# a proxy tells another name than the browser's, which pages are compared with
c.ServerApp.allow_origin = os.environ.get("JUPYTER_ORIGIN", "")
c.ServerApp.root_dir = "/notebooks"
c.ServerApp.open_browser = False
c.ServerApp.quit_button = False
# the trash would be on another disk than the notebooks
c.FileContentsManager.delete_to_trash = False
c.KernelSpecManager.ensure_native_kernel = False
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"
