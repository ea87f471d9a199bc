"""The ``etcd3`` package, made to import beside any protobuf.

The modules that etcd3 0.12 had generated describe its messages to a Python interface that protobuf has removed. Their
essence, each file's serialized descriptor, is a literal in their source. It is read from there, without running them,
into a descriptor pool of our own: no old protobuf is needed, no environment variable, and nothing meets the default
pool, where another etcd client of the same process may have its own ``etcdserverpb``.
"""

from __future__ import annotations

import ast
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message_factory import GetMessageClass

#: In the order of their imports; ``rpc_pb2_grpc``, the stubs, imports as it is.
_FILES = ("auth", "kv", "rpc")


def _descriptor(source: str) -> bytes | None:
    """The argument ``serialized_pb`` of a module generated for protobuf 3; None in modules generated since."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "serialized_pb" and isinstance(node.value, ast.Call):
            return str(ast.literal_eval(node.value.args[0])).encode("latin-1")
    return None


def _module(name: str, pool: DescriptorPool, file: str) -> ModuleType:
    """What the generated module would hold: classes of messages, enumerations and their values."""
    module = ModuleType(name, "Made from the descriptor within etcd3's module of this name.")
    described = pool.FindFileByName(file)
    for message in described.message_types_by_name.values():
        setattr(module, message.name, GetMessageClass(message))
    for enumeration in described.enum_types_by_name.values():
        setattr(module, enumeration.name, EnumTypeWrapper(enumeration))
        for value in enumeration.values:
            setattr(module, value.name, value.number)
    return module


def _prepare() -> None:
    """Let ``import etcd3`` find modules that work."""
    found = find_spec("etcd3")
    if found is None or not found.submodule_search_locations or "etcd3.etcdrpc" in sys.modules:
        return  # the import below says so, or somebody has made it work
    folder = Path(found.submodule_search_locations[0]) / "etcdrpc"
    pool = DescriptorPool()
    for name in _FILES:
        serialized = _descriptor((folder / f"{name}_pb2.py").read_text("utf-8"))
        if serialized is None:
            return
        pool.AddSerializedFile(serialized)
    for name in _FILES:
        path = f"etcd3.etcdrpc.{name}_pb2"
        sys.modules[path] = _module(path, pool, f"{name}.proto")


_prepare()

import etcd3  # noqa: E402
from etcd3 import etcdrpc as rpc  # noqa: E402

__all__ = ["etcd3", "grpc", "rpc"]
