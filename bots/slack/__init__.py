"""Slack. `platform.py` is what the entry point names; the client library is imported only when Slack is on."""
