"""DBOS on SQLite doing steps in a row that do nothing, one commit each. Prints the seconds."""

import os
import sys
import tempfile
import time

from dbos import DBOS

steps = int(sys.argv[1])
folder = tempfile.mkdtemp(dir="/var/tmp")
DBOS(config={"name": "noop", "system_database_url": f"sqlite:///{folder}/dbos.db", "log_level": "ERROR"})


@DBOS.step()
def nothing(n):
    return n


@DBOS.workflow()
def all_of_them():
    for n in range(steps):
        nothing(n)


DBOS.launch()
all_of_them()  # once before, so that what is made on first use is there
began = time.perf_counter()
all_of_them()
print(time.perf_counter() - began)
DBOS.destroy()
for name in os.listdir(folder):
    os.unlink(os.path.join(folder, name))
os.rmdir(folder)
