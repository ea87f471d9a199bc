"""Reports a made-up load to one director: heartbeat_client.py HOST PORT SERVICE/GROUP/HOST [COUNT]"""

import json
import os
import socket
import sys
import time

address, host = (sys.argv[1], int(sys.argv[2])), sys.argv[3]
count = int(sys.argv[4]) if len(sys.argv) > 4 else sys.maxsize
with socket.create_connection(address, timeout=10) as connection, connection.makefile("rwb") as lines:

    def say(**message):
        lines.write(json.dumps(message).encode() + b"\n")
        lines.flush()

    say(type="hello", version=1, agent=socket.gethostname().partition(".")[0], boot_id=os.urandom(8).hex(),
        token=os.environ.get("TOKEN"), hosts=[{"host": host}])
    answer = json.loads(lines.readline())
    if answer["type"] != "welcome" or host in answer.get("refused", {}):
        sys.exit(f"not welcome: {answer}")
    for seq in range(1, count + 1):
        say(type="report", seq=seq, load={"utilisation": os.getloadavg()[0] / 100 % 1, "in_flight": 0})
        time.sleep(answer["interval_s"])
    say(type="leaving", deadline_s=0)
