"""What the garbage collector does while a server serves, seen in a process of its own, as it belongs to the whole process."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import gc
from handfast.app.collecting import NEW_OBJECTS, begin_to_serve

class Ring:
    def __init__(self):
        self.itself = self

begin_to_serve()
standing, frozen = len(gc.get_objects()), gc.get_freeze_count()
collections = []
gc.callbacks.append(lambda phase, info: collections.append(info["collected"]) if phase == "stop" else None)
for _ in range(3 * NEW_OBJECTS):
    Ring()
print(standing < frozen, len(collections) < 10, sum(collections) > NEW_OBJECTS)
"""


def test_what_stands_is_left_alone_and_what_is_new_is_collected():
    """Nearly everything is set aside; rings of new objects go, in a few rounds."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True", "True", "True"]
