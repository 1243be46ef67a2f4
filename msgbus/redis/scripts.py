"""
What Redis executes as one step: the scripts of a log in Redis, in Lua.

No I/O and no clock.  The log has these keys, whose names begin with that of the stream:

- the stream itself: an entry for each message, under the id of the message; and a mark for
  each time that a channel was forgotten, under an id whose second number is 0;
- `:meta`, a hash: `life`, `boundary`, `count` (how many messages this life has had), `ms`
  (the time of the last id of a message), `marked` (that of the last mark), `forgotten` (see
  `History.forgotten`) and `settings` (those of the node that was started last, in JSON);
- `:lost`, a hash: see `History.lost_ids`;
- `:marks`, a hash: by channel, the id of the last mark.  Messages before it may still be in
  the stream, if a node was killed that had to delete them, and the mark is deleted from the
  stream before them;
- `:key:...`: what was answered to a publication with a key or an origin; it expires;
- `:batch:...`: what was answered to the last batch of a node; it expires.

Ids are written with a fixed number of digits, so that they can be compared as texts: Lua's
numbers have too few digits for them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from ..bus.history import MAX_LOST_NAMES
from ..bus.idempotency import SECONDS
from ..ids import COUNT_DIGITS

__all__ = ["APPEND", "CHECK", "FIELDS", "FORGET", "Script"]

# The arguments of `APPEND` for each message: the digests of a `Fingerprint` in hexadecimal,
# empty if there is none, and the fields of the entry.  The last one, which most messages
# lack, is left out of the entry where it is empty, so that nodes of earlier versions can
# read those.
FIELDS = ("name", "body_digest", "n", "c", "t", "s", "o", "k", "b", "x")

# The value of the field `k` of a mark: the messages of the channel `c` before it are
# forgotten.  That of a message is 1 if history may keep it, and otherwise 0.
MARK = "forget"

# For how many channels the last mark is remembered.
MAX_MARKS = 10_000

# How long the answer to a node's last batch is remembered.  A node repeats a batch for a
# few seconds only.
BATCH_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Script:
    """
    A script, and the digest by which Redis knows it once it has come.
    """

    text: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        # Redis uses SHA-1 as a name, not for security.
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "digest", digest)


# Begins the log if it is empty, or if somebody else has changed `:meta`.  Begins a new life
# if messages were lost.
#
# KEYS: :meta, and the stream if the node knows a life
# ARGV: a new life; a new boundary; the life that the node knows; how many messages of it
# there were by what the node knows, and the newest id that it has seen
# Returns: life, boundary, count, ms
CHECK = Script(f"""
local meta = redis.call('HMGET', KEYS[1], 'life', 'count', 'ms', 'boundary')
local count, ms = tonumber(meta[2] or ''), tonumber(meta[3] or '')
if not (string.match(meta[1] or '', '^[1-9]%d%d%d%d%d$') and count and ms
    and string.match(meta[4] or '', '^msgbus%x+$') and count < 1e{COUNT_DIGITS}) then
  redis.call('HSET', KEYS[1], 'life', ARGV[1], 'boundary', ARGV[2], 'count', 0, 'ms', 0)
elseif meta[1] == ARGV[3] then
  -- Does this Redis lack messages that the node has seen, because it is an older copy?
  local known = tonumber(ARGV[4])
  local lost = count < known or ms < tonumber(string.match(ARGV[5], '^%d+'))
  if not lost then
    -- Others may have appended to the older copy, also while the node has still seen what
    -- was appended to the one that is gone.  Then the numbers of messages that were lost
    -- were given to others.  Ids and numbers in one log grow together, so the entries
    -- around the newest id that the node has seen tell that.  One with another kind of id,
    -- or of another life, tells nothing.
    local function number_of(entry)
      local life, number =
        string.match(entry and entry[1] or '', '%-(%d%d%d%d%d%d)({"%d" * COUNT_DIGITS})$')
      return life == meta[1] and tonumber(number)
    end
    local seen = ARGV[5]
    local before = redis.call('XREVRANGE', KEYS[2], seen, '-', 'COUNT', 1)[1]
    local after = number_of(redis.call('XRANGE', KEYS[2], '(' .. seen, '+', 'COUNT', 1)[1])
    lost = after and after <= known
    if before and before[1] ~= seen then
      local number = number_of(before)
      lost = lost or number and number >= known
    end
  end
  if lost then
    -- The next ids must not be those of other messages.
    redis.call('HSET', KEYS[1], 'life', ARGV[1], 'count', 0,
      'ms', string.format('%.0f', ms + 1))
  end
end
return redis.call('HMGET', KEYS[1], 'life', 'boundary', 'count', 'ms')
""")

# Appends a batch of messages, once.
#
# KEYS: the stream, :meta, :batch:NODE, :marks
# ARGV: the life that the node knows, the number of the batch, and FIELDS for each message
# Returns: for each message or mark its id, with `=` before it if the publication is a
# repetition, or `!` if its key was used with another body; separated by spaces.  Or `LIFE`
# if the life is another one, and nothing was appended.
# A batch is refused if it comes after a later one of the same node, because a proxy has
# held it back: it may have been appended before.
APPEND = Script(f"""
local batch = redis.call('GET', KEYS[3])
if batch then
  local number, answer = string.match(batch, '^(%S+) (.*)$')
  if number == ARGV[2] then
    -- This is written, so that only a master says it, and that `WAIT` waits for what was
    -- appended before by a connection that has ended.
    redis.call('EXPIRE', KEYS[3], {BATCH_SECONDS})
    return answer
  end
  if tonumber(number) > tonumber(ARGV[2]) then
    return redis.error_reply('STALE a later batch of this node was appended before')
  end
end
local meta = redis.call('HMGET', KEYS[2], 'life', 'count', 'ms', 'marked')
if meta[1] ~= ARGV[1] then return 'LIFE' end
local time = redis.call('TIME')
-- The clock may have been set back, but ids must grow.
local marked = tonumber(meta[4] or '') or 0
local ms = math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(meta[3]), marked)
local count, last = tonumber(meta[2]), tonumber(meta[3])
local answers, published = {{}}, {{}}
-- What is published by this batch, by name: one publication may be in it twice.
local told = {{}}
for i = 3, #ARGV, {len(FIELDS)} do
  local name, digest = ARGV[i], ARGV[i + 1]
  local known = name ~= '' and (told[name] or redis.call('GET', KEYS[1] .. ':key:' .. name))
  if known then
    local body, id = string.match(known, '^(%S*) (%S+)$')
    answers[#answers + 1] = body == digest and '=' .. id or '!'
  elseif ARGV[i + 7] == '{MARK}' then
    -- It has no number, so that no message seems to be missing; so it needs a time that no
    -- id before it has.
    if ms == last or ms == marked then ms = ms + 1 end
    marked = ms
    local id = string.format('%013.0f-0', ms)
    published[id] = i
    answers[#answers + 1] = id
  else
    count = count + 1
    local id = string.format('%013.0f-%s%012.0f', ms, meta[1], count)
    if name ~= '' then told[name] = digest .. ' ' .. id end
    published[id] = i
    answers[#answers + 1] = id
    last = ms
  end
end
-- Before XADD: if that fails, these ids must not be given again.
redis.call('HSET', KEYS[2], 'count', string.format('%.0f', count),
  'ms', string.format('%.0f', last))
if marked > 0 then redis.call('HSET', KEYS[2], 'marked', string.format('%.0f', marked)) end
for _, id in ipairs(answers) do
  local i = published[id]
  if i then
    local entry = {{'n', ARGV[i + 2], 'c', ARGV[i + 3], 't', ARGV[i + 4], 's', ARGV[i + 5],
      'o', ARGV[i + 6], 'k', ARGV[i + 7], 'b', ARGV[i + 8], 'x', ARGV[i + 9]}}
    redis.call('XADD', KEYS[1], id, unpack(entry, 1, ARGV[i + 9] == '' and 14 or 16))
    local name = ARGV[i]
    if ARGV[i + 7] == '{MARK}' then
      redis.call('HSET', KEYS[4], ARGV[i + 3], id)
    elseif name ~= '' then
      redis.call('SET', KEYS[1] .. ':key:' .. name, told[name], 'EX', {SECONDS})
    end
  end
end
if marked == ms and redis.call('HLEN', KEYS[4]) > {MAX_MARKS} then
  local marks, times = redis.call('HGETALL', KEYS[4]), {{}}
  for i = 2, #marks, 2 do times[#times + 1] = marks[i] end
  table.sort(times)
  local oldest = times[{MAX_MARKS // 10}]
  for i = 2, #marks, 2 do
    if marks[i] <= oldest then redis.call('HDEL', KEYS[4], marks[i - 1]) end
  end
end
local answer = table.concat(answers, ' ')
redis.call('SET', KEYS[3], ARGV[2] .. ' ' .. answer, 'EX', {BATCH_SECONDS})
return answer
""")

# Deletes messages, and notes which channels have lost some.
#
# KEYS: the stream, :meta, :lost
# ARGV: how many messages, their ids, and pairs of the name of a channel or folder and the
# newest id that it has lost
FORGET = Script(f"""
local count = tonumber(ARGV[1])
for i = 2, count + 1 do redis.call('XDEL', KEYS[1], ARGV[i]) end
for i = count + 2, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[3], ARGV[i])
  if not known or known < ARGV[i + 1] then
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
  end
end
if redis.call('HLEN', KEYS[3]) > {MAX_LOST_NAMES} then
  local newest = redis.call('HGET', KEYS[2], 'forgotten') or ''
  for _, id in ipairs(redis.call('HVALS', KEYS[3])) do
    if id > newest then newest = id end
  end
  redis.call('DEL', KEYS[3])
  redis.call('HSET', KEYS[2], 'forgotten', newest)
end
""")
