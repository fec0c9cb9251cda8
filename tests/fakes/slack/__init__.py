"""A Slack of our own on loopback, which the real client library talks to: Web API, Socket Mode, Events, OAuth."""

from tests.fakes.slack.server import SlackServer
from tests.fakes.slack.world import Channel, Message, Workspace

__all__ = ["Channel", "Message", "SlackServer", "Workspace"]
