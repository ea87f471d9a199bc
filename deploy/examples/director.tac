"""A director for twistd: ``twistd --nodaemon --python deploy/examples/director.tac``.

The same model as director.toml, written in Python. Names in capitals are the model's records (`cluster.model`).
"""

from cluster.model import AdminEndpoint, Health, Limits, Probe
from director.builder import Director

director = Director("lb1", store="memory:")
director.agents("127.0.0.1:7946")
director.admin(AdminEndpoint(listen="127.0.0.1:7401"))

web = director.service("web", "127.0.0.1:8080", limits=Limits(max_connections=5_000, queue=100))
blue = web.group("blue", scheduler="p2c", choices=3, health=Health(probe=Probe(kind="http", path="/")))
for number in (1, 2, 3):
    blue.host(f"app{number}", f"127.0.0.1:900{number}", weight=number)

application = director.application()
