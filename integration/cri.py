#!/usr/bin/python3
"""cri.py METHOD [JSON]: one call of containerd's CRI socket, as a kubelet makes it; the answer is JSON.

Its messages come from the .proto of cri-api; bytes are base64, as in all JSON of protobuf.
"""
import pathlib
import subprocess
import sys

import grpc
from google.protobuf import json_format

SOURCE = pathlib.Path("/usr/share/gocode/src/k8s.io/cri-api/pkg/apis/runtime/v1/api.proto")
MODULES = pathlib.Path("/run/cri-modules")


def messages():
    """The messages as a Python module, made at the first call; without what is meant for Go."""
    if not MODULES.exists():
        MODULES.mkdir()
        lines = [line for line in SOURCE.read_text().splitlines() if "gogoproto" not in line]
        (MODULES / "api.proto").write_text("\n".join(lines))
        subprocess.run(["protoc", f"-I{MODULES}", f"--python_out={MODULES}", "api.proto"], check=True)
    sys.path.insert(0, str(MODULES))
    import api_pb2

    return api_pb2


def call(method, text):
    api = messages()
    for service in api.DESCRIPTOR.services_by_name.values():
        if method in service.methods_by_name:
            kind = service.methods_by_name[method]
            break
    else:
        sys.exit(f"cri.py: no method {method}")
    request = json_format.Parse(text, getattr(api, kind.input_type.name)())
    channel = grpc.insecure_channel("unix:///run/containerd/containerd.sock")
    ask = channel.unary_unary(
        f"/{service.full_name}/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=getattr(api, kind.output_type.name).FromString,
    )
    return ask(request, timeout=60)


try:
    answer = call(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "{}")
    print(json_format.MessageToJson(answer, including_default_value_fields=True, preserving_proto_field_name=True, indent=None))
except grpc.RpcError as error:
    sys.exit(error.details())
