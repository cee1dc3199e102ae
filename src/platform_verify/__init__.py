"""The verdict: evidence of a running platform, judged by tests, told to people and programs."""
