"""The environment of a project: found in its files, locked, and kept for the image.

This is done where snapshots are made. Beside the standard library it takes what Ansible brings.
"""
