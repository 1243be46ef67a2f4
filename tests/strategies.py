"""
Strategies and settings of hypothesis for more than one test module.
"""

from hypothesis import Phase, settings
from hypothesis import strategies as st

from msgbus.headers import Headers
from msgbus.message import Invalid, Message, check_name


def is_name(text):
    """
    Can this text be the name of a channel or folder?
    """
    try:
        check_name(text)
    except Invalid:
        return False
    return True


# Without surrogates, which cannot be encoded, and without control characters, which names
# and senders may not contain, so that few draws are thrown away.
characters = st.characters(exclude_categories=("Cs", "Cc"))
segments = st.text(characters, min_size=1, max_size=8).filter(is_name)
names = (
    st.lists(segments, max_size=4)
    .flatmap(lambda parts: st.sampled_from(["/".join(parts), "/".join([*parts, ""])]))
    .filter(is_name)
)
types = st.sampled_from(
    ["text/plain", "image/svg+xml", "Text/HTML; charset=utf-8", "a/b;c=ä"]
)
origins = st.sampled_from(["", "0/1-2", "4711/1764-4711000000000017"])
senders = st.text(characters, max_size=8).map(str.strip)


headers = st.dictionaries(
    st.sampled_from(["content-encoding", "ce-type", "x-9"]),
    st.text(characters, max_size=8),
    max_size=2,
).map(Headers)


def messages():
    """
    Any message.
    """
    fields = (names, st.binary(max_size=100), types, senders)
    return st.builds(
        Message,
        *fields,
        origin=origins,
        headers=headers,
        max_age=st.none() | st.integers(0, 2**31),
    )


def splits(data):
    """
    Places at which these bytes may be cut.
    """
    return st.lists(st.integers(0, len(data)), max_size=20)


# For state machines.  Without shrinking, which takes minutes for them.
machine_settings = settings(
    max_examples=200,
    stateful_step_count=40,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
