"""The bench platform's containers as pyinfra would keep them: an operation and a file each."""

import io

from pyinfra.context import host
from pyinfra.operations import docker, files

for name, image in host.data.images.items():
    files.put(
        name=f"Configuration of {name}",
        src=io.StringIO(f"{name}\n"),
        dest=f"{host.data.directory}/{name}.conf",
    )
    docker.container(
        name=f"Container of {name}",
        container=f"bench-pyinfra-{name}",
        image=image,
        present=True,
        start=True,
    )
