"""nginx and HAProxy send and receive PROXY headers: the host knows the client by whatever way it came."""

from __future__ import annotations

from typing import ClassVar

from tests.clients.kit import Clients, free_ports, on_both_relays, random_file, run, sha256, wait_until

FILE_BYTES = 20 << 20
#: Requests by each way, enough that both hosts answer.
REQUESTS = 4
CHECKED = 50
#: Where the proxies in front connect from: whom the director believes.
PROXY = "127.0.0.2"

NGINX = """
load_module modules/ngx_stream_module.so;
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log /dev/null;
events {{ worker_connections 512; }}
stream {{
    server {{ listen 127.0.0.1:{nginx_v1}; proxy_bind {proxy}; proxy_pass 127.0.0.1:{director}; proxy_protocol on; }}
}}
"""
NGINX_HOST = """
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx-host.pid;
error_log /dev/null;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    server {{
        listen 127.0.0.1:{nginx} proxy_protocol;
        root {directory};
        location = /who {{ return 200 "nginx $proxy_protocol_addr:$proxy_protocol_port"; }}
    }}
}}
"""
HAPROXY = """
defaults
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen sends-v1
    mode tcp
    bind 127.0.0.1:{haproxy_v1}
    server director 127.0.0.1:{director} source {proxy} send-proxy
listen sends-v2
    mode tcp
    bind 127.0.0.1:{haproxy_v2}
    server director 127.0.0.1:{director} source {proxy} send-proxy-v2
"""
#: Only looks whether the director is there, as HAProxy does behind each of its ``check``.
CHECKS = """
defaults
    mode tcp
    timeout connect 10s
    timeout check 10s
    timeout client 60s
    timeout server 60s
listen checks
    bind {directory}/checks.socket
    server v1 127.0.0.1:{director} source {proxy} send-proxy check inter 20ms
    server v2 127.0.0.1:{director} source {proxy} send-proxy-v2 check inter 20ms
"""
HAPROXY_HOST = """
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
frontend host
    bind 127.0.0.1:{haproxy} accept-proxy
    http-request return status 200 content-type text/plain lf-string "haproxy %[src]:%[src_port]" if {{ path /who }}
    default_backend nginx
backend nginx
    server nginx 127.0.0.1:{nginx} send-proxy-v2
"""


class ProxyProtocol(Clients):
    __test__ = False
    needs = ("nginx", "haproxy", "curl")
    #: Which header the director sends.
    version: ClassVar[str]
    #: Ports of the director itself and of the proxies in front of it.
    ways: ClassVar[dict[str, int]]
    whole: ClassVar[str]

    @classmethod
    def serve(cls) -> None:
        cls.whole = random_file(cls.directory / "big", FILE_BYTES)
        names = ("nginx", "haproxy", "nginx_v1", "haproxy_v1", "haproxy_v2")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        cls.start("nginx-host", NGINX_HOST, ports, "nginx")
        cls.start("haproxy-host", HAPROXY_HOST, ports, "haproxy")
        cls.director = cls.direct(ports["nginx"], ports["haproxy"],
                                  more=f'proxy = {{ send = "{cls.version}", accept_from = ["{PROXY}/32"] }}')
        ports["director"] = cls.director.port
        cls.start("nginx", NGINX, ports, "nginx_v1")
        cls.start("haproxy", HAPROXY, ports, "haproxy_v2")
        (cls.directory / "checks.conf").write_text(CHECKS.format(directory=cls.directory, proxy=PROXY, **ports))
        cls.ways = {name: ports[name] for name in ("director", "nginx_v1", "haproxy_v1", "haproxy_v2")}

    @classmethod
    def start(cls, name: str, configuration: str, ports: dict[str, int], port: str) -> None:
        path = cls.directory / f"{name}.conf"
        path.write_text(configuration.format(directory=cls.directory, proxy=PROXY, **ports))
        if name.startswith("nginx"):
            cls.server("nginx", "-e", "/dev/null", "-c", path, port=ports[port])
        else:
            cls.server("haproxy", "-db", "-f", path, port=ports[port])

    def test_who_it_is(self) -> None:
        """Either host is told curl's own address and port."""
        for way, port in self.ways.items():
            answered = set()
            for _ in range(REQUESTS):
                said = run("curl", "--silent", "--show-error", "--write-out", " %{local_ip}:%{local_port}",
                           f"http://127.0.0.1:{port}/who")
                host, told, own = said.split()
                self.assertEqual(told, own, f"by {way}")
                answered.add(host)
            self.assertEqual(answered, {"nginx", "haproxy"}, way)

    def test_downloads(self) -> None:
        """What follows the header is whole, by every way."""
        target = self.directory / "received"
        for way, port in self.ways.items():
            for _ in range(2):
                run("curl", "--silent", "--show-error", "--fail", "--output", target, f"http://127.0.0.1:{port}/big")
                self.assertEqual(sha256(target), self.whole, way)

    def test_checks(self) -> None:
        """HAProxy's checks find the director up, and each is counted as what it is: a reset."""
        before = self.ended("client_reset")
        checking = self.client("haproxy", "-db", "-f", self.directory / "checks.conf")

        def enough() -> bool:
            assert checking.poll() is None, checking.communicate()
            return self.ended("client_reset") - before >= CHECKED

        wait_until(enough, f"{CHECKED} checks are counted")
        checking.terminate()
        _, complaint = checking.communicate(timeout=20)
        self.assertNotIn("is DOWN", complaint)
        self.assertEqual(self.ended("bad_proxy_header"), 0)

    def ended(self, reason: str) -> float:
        return self.director.total("txdirector_connections_ended_total", f'reason="{reason}"')


class ProxyProtocol1(ProxyProtocol):
    version = "v1"


class ProxyProtocol2(ProxyProtocol):
    version = "v2"


PythonProxyProtocol1Tests, NativeProxyProtocol1Tests = on_both_relays(ProxyProtocol1)
PythonProxyProtocol2Tests, NativeProxyProtocol2Tests = on_both_relays(ProxyProtocol2)
