"""Writes the reference descriptors to stdout as one serialized google.protobuf.FileDescriptorSet.

The first run installs the pinned wheels, without their dependencies, into a virtual environment below
.cache/ and later runs reuse it. Nothing of the SDK runs: only its generated *_pb2 modules are imported,
and each hands over the file descriptor that it carries.
"""

import glob
import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import types

PINS = [
    "dapr==1.18.3",
    "dapr-ext-workflow==1.18.3",
    "googleapis-common-protos==1.76.0",
    "grpcio-reflection==1.80.0",
    "protobuf==7.36.2",
]
PATTERNS = [
    "dapr/**/*_pb2.py",
    "google/rpc/status_pb2.py",
    "google/rpc/error_details_pb2.py",
    "grpc_reflection/v1alpha/reflection_pb2.py",
]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KEY = hashlib.sha256("\n".join([*PINS, sys.version]).encode()).hexdigest()[:12]
VENV = os.path.join(ROOT, ".cache", "proto-reference-" + KEY)


def install():
    """Builds the environment aside and renames it, so a half-built one is never taken for a good one."""
    building = f"{VENV}.{os.getpid()}"
    os.makedirs(os.path.dirname(VENV), exist_ok=True)
    try:
        run([sys.executable, "-m", "venv", building])
        pip = [os.path.join(building, "bin", "python"), "-m", "pip", "--disable-pip-version-check"]
        run([*pip, "install", "--quiet", "--no-deps", "--only-binary", ":all:", *PINS])
        try:
            os.rename(building, VENV)
        except OSError:
            if not os.path.isdir(VENV):  # else: another run was faster, its result is as good
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def run(command):
    subprocess.run(command, check=True, stdout=sys.stderr, timeout=240)


def load(path, site):
    """Imports one generated module under bare parents: the SDK's own package code would want grpc."""
    name = os.path.relpath(path, site)[: -len(".py")].replace(os.sep, ".")
    parents = name.split(".")[:-1]
    if parents[0] == "dapr":
        for depth in range(1, len(parents) + 1):
            package = ".".join(parents[:depth])
            if package not in sys.modules:
                bare = types.ModuleType(package)
                bare.__path__ = [os.path.join(site, *parents[:depth])]
                sys.modules[package] = bare
    return importlib.import_module(name).DESCRIPTOR


def add_json_names(message, descriptor):
    """Generated Python leaves out JSON names that follow from the field name; the runtime knows them."""
    for field in message.field:
        field.json_name = descriptor.fields_by_name[field.name].json_name
    for nested in message.nested_type:
        add_json_names(nested, descriptor.nested_types_by_name[nested.name])


def emit():
    import google.protobuf
    from google.protobuf import descriptor_pb2

    site = os.path.dirname(os.path.dirname(os.path.dirname(google.protobuf.__file__)))
    found = descriptor_pb2.FileDescriptorSet()
    seen = set()

    def add(descriptor):
        if descriptor.name in seen:
            return
        seen.add(descriptor.name)
        for imported in descriptor.dependencies:
            add(imported)
        file = descriptor_pb2.FileDescriptorProto.FromString(descriptor.serialized_pb)
        for message in file.message_type:
            add_json_names(message, descriptor.message_types_by_name[message.name])
        found.file.append(file)

    for pattern in PATTERNS:
        paths = sorted(glob.glob(os.path.join(site, pattern), recursive=True))
        if not paths:
            sys.exit(f"the installed wheels hold no {pattern}")
        for path in paths:
            add(load(path, site))
    sys.stdout.buffer.write(found.SerializeToString())


if __name__ == "__main__":
    if sys.argv[1:] == ["--emit"]:
        emit()
    else:
        if not os.path.isdir(VENV):
            install()
        python = os.path.join(VENV, "bin", "python")
        sys.stdout.flush()
        os.execv(python, [python, os.path.abspath(__file__), "--emit"])
