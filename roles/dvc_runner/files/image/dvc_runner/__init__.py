"""Run a DVC project in a workspace of its own, against one remote and one tracking server.

The project's own checkout is never mounted and never written: a snapshot of what git would commit
is brought here, a run happens here, and each run ends as a commit on top of that snapshot.
"""
