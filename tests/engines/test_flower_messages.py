"""Messages that are put together here are those that Flower's own constructors make."""

from __future__ import annotations

import numpy as np
from flwr.app import Message

from fedmem.engines._flower import in_process, local_reply, reply_to


def test_a_reply_is_what_flower_would_make() -> None:
    arrays = {"w": np.arange(3.0, dtype=np.float32)}
    with in_process():
        asked = Message(local_reply(arrays, {"num-examples": 3}, {}), 7, "train")
        content = local_reply(arrays, {"num-examples": 4, "train_loss": 0.5}, {"client": 2, "steps": 6})
        made, expected = reply_to(asked, content), Message(content, reply_to=asked)
        own, flowers = ({**vars(one.metadata)} for one in (made, expected))
        for name in ("_created_at", "_ttl"):  # a reply of this process takes no time
            del own[name], flowers[name]
        assert own == flowers
        assert vars(made).keys() == vars(expected).keys()
        assert type(made) is Message
        assert made.content is content
        assert not made.has_error()
