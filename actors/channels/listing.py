"""Lists of channels, of their subscribers and of what a user follows, page by page."""

from collections.abc import Callable, Iterable, Mapping
from heapq import nsmallest

from actors.channels.channel import Channel
from protocol.channels import (
    MAX_PAGE,
    ChannelInfo,
    ChannelList,
    GetSubscribers,
    ListChannels,
    Peer,
    Subscriber,
    SubscriberList,
)
from protocol.users import GetUserChannels, UserChannel, UserChannels


def channel_list(
    message: ListChannels, channels: Iterable[Channel], expire: Callable[[Channel], object]
) -> ChannelList:
    """Return a page of a tenant's channels.

    Args:
        message: says which page.
        channels: the tenant's, in any order.
        expire: drops what has expired in a channel; called for those of the page.
    """
    limit = _limit(message.limit)
    found = nsmallest(limit + 1, (one for one in channels if one.name > message.after), key=lambda one: one.name)
    for channel in found[:limit]:
        expire(channel)
    return ChannelList(tuple(_info(channel) for channel in found[:limit]), more=len(found) > limit)


def subscriber_list(message: GetSubscribers, channel: Channel) -> SubscriberList:
    """Return a page of the clients that follow a channel; a client with several sockets is one."""
    after = ("", "") if message.after is None else (message.after.user, message.after.client)
    sockets: dict[tuple[str, str], int] = {}
    for follower in channel.followers.values():
        name = (follower.peer.user, follower.peer.client)
        if message.after is None or name > after:
            sockets[name] = sockets.get(name, 0) + 1
    limit = _limit(message.limit)
    names = nsmallest(limit + 1, sockets)
    items = (
        Subscriber(user=user, client=client, sockets=sockets[user, client], member=_is_member(channel, user, client))
        for user, client in names[:limit]
    )
    return SubscriberList(tuple(items), more=len(names) > limit)


def user_channels(message: GetUserChannels, followed: Mapping[str, list[tuple[Channel, Peer]]]) -> UserChannels:
    """Return a page of the channels that a user follows.

    Args:
        message: says which page.
        followed: by channel's name, the channel and the peer of each of the user's sockets.
    """
    limit = _limit(message.limit)
    names = nsmallest(limit + 1, (name for name in followed if name > message.after))
    items = (
        UserChannel(
            name=name,
            sockets=len(followed[name]),
            member=any(_is_member(channel, peer.user, peer.client) for channel, peer in followed[name]),
        )
        for name in names[:limit]
    )
    return UserChannels(tuple(items), more=len(names) > limit)


def _limit(limit: int) -> int:
    return max(1, min(limit, MAX_PAGE))


def _is_member(channel: Channel, user: str, client: str) -> bool:
    return channel.presence.member(Peer(user, client)) is not None


def _info(channel: Channel) -> ChannelInfo:
    return ChannelInfo(
        name=channel.name,
        followers=len(channel.followers),
        members=len(channel.presence),
        publications=len(channel.log),
        position=channel.log.position,
    )
