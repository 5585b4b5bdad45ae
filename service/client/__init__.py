"""A client for programs: submit and follow requests, publish to channels and listen to them, reconnect by itself."""

from service.client.client import Client, Published, Receipt, State
from service.client.following import Finished, Following, Update
from service.client.listening import Gap, Listening, Message, Presence

__all__ = [
    "Client",
    "Finished",
    "Following",
    "Gap",
    "Listening",
    "Message",
    "Presence",
    "Published",
    "Receipt",
    "State",
    "Update",
]
