"""Bytes are kept in Redis under a key, for all replicas of the service, bounded in bytes and in time, by use.

A value lies under a key of its own, so that Redis forgets it by itself. Beside the values stand a sorted set of all keys by
their last use and the sum of their bytes; both are changed by scripts, each of which Redis runs as one step. The scripts take
the time from Redis, so the clocks of the replicas do not matter.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.inference.errors import AddressError, StoreGoneError

logger = logging.getLogger(__name__)

# A Redis in the same network answers within milliseconds, and 20 MB take it 0.2 seconds at a gigabit per second. What takes
# longer than this is no help to a request that would be worked out anew in less.
CONNECT_SECONDS = 0.5
ANSWER_SECONDS = 1.0
# A Redis that did not answer is asked again after so many seconds, by one request: all others need not wait for it.
PAUSE_SECONDS = 1.0
REDIS_PORT = 6379  # It is taken where an address names none.

# The members of the sorted set are "BYTES NAME". KEYS: the sorted set, the sum. ARGV: what the keys of values begin with, the
# name, the value, the most bytes, the time to live in milliseconds. Returns the sum. The value is written first: a Redis without
# memory left refuses that, and lets a script that has written go on.
PUT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local size = #ARGV[3]
local function drop(members)
    for _, member in ipairs(members) do
        local bytes, name = string.match(member, '^(%d+) (.*)$')
        redis.call('ZREM', KEYS[1], member)
        redis.call('DECRBY', KEYS[2], bytes)
        redis.call('DEL', ARGV[1] .. name)
    end
end
redis.call('SET', ARGV[1] .. ARGV[2], ARGV[3], 'PX', ARGV[5])
if redis.call('ZREM', KEYS[1], size .. ' ' .. ARGV[2]) == 1 then
    redis.call('DECRBY', KEYS[2], size)
end
drop(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[5]))
while (redis.call('GET', KEYS[2]) or 0) + size > tonumber(ARGV[4]) do
    local oldest = redis.call('ZRANGE', KEYS[1], 0, 0)
    if #oldest == 0 then redis.call('SET', KEYS[2], 0) end
    drop(oldest)
end
redis.call('ZADD', KEYS[1], now, size .. ' ' .. ARGV[2])
local sum = redis.call('INCRBY', KEYS[2], size)
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return sum
"""

# The KEYS are those above. ARGV: what the keys of values begin with, the name, the time to live. It returns the value, or nothing.
GET = """
local value = redis.call('GET', ARGV[1] .. ARGV[2])
if value then
    local time = redis.call('TIME')
    redis.call('PEXPIRE', ARGV[1] .. ARGV[2], ARGV[3])
    redis.call('ZADD', KEYS[1], 'XX', time[1] * 1000 + math.floor(time[2] / 1000), #value .. ' ' .. ARGV[2])
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
return value
"""


def connect(address: str) -> redis.Redis:
    """Return a client of the Redis at an address; it connects when it is first used. Raises AddressError.

    A connection that breaks is made anew once, for those to a Redis that was started anew are all broken.
    """
    try:
        return redis.Redis.from_url(
            address,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        )
    except ValueError as error:
        raise AddressError(
            f"TAG2MASK_STORE is no address of a Redis ({error}). Write redis://HOST:PORT/NUMBER, rediss:// for TLS, or "
            f"redis://:PASSWORD@HOST."
        ) from None


class RedisStore:
    """It holds values of one kind, which share `capacity_bytes`; each is forgotten `time_to_live_seconds` after its last use.

    Safe to share among threads; a call takes some two seconds at most where Redis does not answer.
    """

    def __init__(
        self,
        client: redis.Redis,
        kind: str,
        capacity_bytes: int,
        time_to_live_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.size_bytes = 0  # Redis said so when something was put last.
        self.answers = True  # It tells whether Redis answered when it was asked last.
        self._lifetime = max(1, round(1000 * time_to_live_seconds))
        # The braces put all keys into one slot of a Redis Cluster.
        self._prefix = f"{{tag2mask:{kind}}}:"
        self._books = [f"{self._prefix}uses", f"{self._prefix}bytes"]
        self._put, self._get = client.register_script(PUT), client.register_script(GET)
        self._address = address_of(client)
        self._clock = clock
        self._lock = threading.Lock()
        self._again = clock()  # Redis is not asked before this time.

    def put(self, key: str, value: bytes) -> None:
        """Keep a value; one larger than the whole store is not kept. Raises StoreGoneError."""
        if len(value) <= self.capacity_bytes:
            self.size_bytes = self._ask(
                self._put, f"{self._prefix}value:", key, value, self.capacity_bytes, self._lifetime
            )

    def get(self, key: str) -> bytes | None:
        """Return the value of that key, whose time starts anew, or None. Raises StoreGoneError."""
        value: bytes | None = self._ask(self._get, f"{self._prefix}value:", key, self._lifetime)
        return value

    def _ask(self, script: Any, *arguments: Any) -> Any:
        with self._lock:
            if not self.answers and self._clock() < self._again:
                raise self._gone()
            self._again = self._clock() + PAUSE_SECONDS
        try:
            answer = script(self._books, arguments)
        except redis.ResponseError as error:  # It is there, but has no memory left, say.
            logger.warning("%s refuses what is asked of it: %s", self._address, error)
            raise StoreGoneError(f"{self._address} refuses what is asked of it: {error}.") from None
        except redis.RedisError as error:
            with self._lock:
                if self.answers:
                    logger.warning("%s does not answer, so nothing is kept there for now: %s", self._address, error)
                self.answers = False
                self._again = self._clock() + PAUSE_SECONDS
            raise self._gone() from None
        with self._lock:
            if not self.answers:
                logger.info("%s answers again", self._address)
            self.answers = True
        return answer

    def _gone(self) -> StoreGoneError:
        return StoreGoneError(f"what is kept cannot be looked up: {self._address} does not answer.")


def address_of(client: redis.Redis) -> str:
    """Return what messages call the Redis of a client: its address, without the password."""
    where = client.connection_pool.connection_kwargs
    return f"the Redis at {where.get('path') or '{host}:{port}'.format_map({'port': REDIS_PORT, **where})}"
