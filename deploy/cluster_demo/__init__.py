"""``make cluster-demo``: three etcd members, two directors with a VIP, four backends, a client; and cables pulled."""
