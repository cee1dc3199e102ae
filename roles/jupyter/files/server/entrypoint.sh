#!/bin/sh
# What the server needs of the folders it was given: one that cannot be used is told in one sentence.
set -eu
refuse() {
  echo "$1" >&2
  exit 1
}
owner() { stat -c %u:%g "$1"; }
me=$(id -u):$(id -g)
[ -w /notebooks ] && [ -x /notebooks ] || refuse "The folder of notebooks (jupyter_notebooks, on the host) cannot be written by $me, it is $(owner /notebooks)'s: set jupyter_user to its owner, or change the owner with chown."
[ -w "$HOME" ] || refuse "The home of notebooks (volume jupyter_home) cannot be written by $me, it is $(owner "$HOME")'s: set jupyter_user back to its owner, or name another volume."
others=$(find /notebooks -mindepth 1 -maxdepth 2 ! -writable -print -quit 2>/dev/null)
[ -z "$others" ] || echo "$others and maybe more in the folder of notebooks cannot be written by $me: it opens read-only, until its owner on the host is changed." >&2

# Kernels run in an environment of their own on the volume. It sees the image's packages, and what %pip adds stays there.
kernel=$HOME/kernel
[ -x "$kernel/bin/python" ] && "$kernel/bin/python" -c "" 2>/dev/null || /opt/venv/bin/python -m venv --clear --without-pip "$kernel"
here=$("$kernel/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$here"
/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$here/image.pth"
printf '#!/bin/sh\nexec %s/bin/python -m pip "$@"\n' "$kernel" >"$kernel/bin/pip"
chmod +x "$kernel/bin/pip"

if [ -z "$(ls -A /notebooks)" ]; then
  cp /config/notebooks/start_here.ipynb /notebooks/
fi
exec "/opt/venv/bin/$1" "$2"
