"""The reference of protocols, `docs/reference/protocols.md`, made of `protos/` with comments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

from tests.reference.markdown import MADE, code, page, prose, table

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "reference" / "protocols.md"
PROTOS: Final = ROOT / "protos"
_ORDER: Final = ("router", "worker", "link", "types")
_HEAD: Final = f"""\
# Protocols

{MADE}

gRPC and the frames of links, package `moeops.v1`. Fields that a program does not know are \
ignored; a comment stands for the fields after it, too, where they have none of their own."""

# Numbers of fields in descriptor.proto, of which the paths of comments are made.
_MESSAGES, _ENUMS, _SERVICES, _SYNTAX = 4, 5, 6, 12
_FIELDS, _NESTED_ENUMS, _VALUES, _METHODS = 2, 4, 2, 2

Steps = tuple[int, ...]
Comments = Mapping[Steps, str]


def text() -> str:
    """Return the page as it is to be."""
    files = {Path(file.name).stem: file for file in described().file}
    if files.keys() != set(_ORDER):
        raise ValueError(f"protos are {', '.join(sorted(files))}; _ORDER names {', '.join(_ORDER)}")
    return page([_HEAD, *(line for name in _ORDER for line in _file(files[name]))])


def described() -> FileDescriptorSet:
    """Return all protos with their comments."""
    names = [str(path) for path in sorted(PROTOS.glob("moeops/v1/*.proto"))]
    with TemporaryDirectory() as folder:
        out = Path(folder) / "descriptors"
        flags = ["protoc", f"-I{PROTOS}", "--include_source_info", f"--descriptor_set_out={out}"]
        if protoc.main([*flags, *names]) != 0:
            raise ValueError("protoc refuses the protos; it says why on stderr")
        return FileDescriptorSet.FromString(out.read_bytes())


def comments(file: FileDescriptorProto) -> Comments:
    """Return what is written above or behind each element, by its path."""
    return {
        tuple(place.path): place.leading_comments or place.trailing_comments
        for place in file.source_code_info.location
        if place.leading_comments or place.trailing_comments
    }


def _file(file: FileDescriptorProto) -> Iterator[str]:
    said = comments(file)
    yield from ("", f"## {Path(file.name).name}", *_paragraphs(said.get((_SYNTAX,), "")))
    for i, service in enumerate(file.service):
        yield from _service(service, (_SERVICES, i), said)
    for i, message in enumerate(file.message_type):
        yield from _message(message, (_MESSAGES, i), said)
    for i, enum in enumerate(file.enum_type):
        yield from _enum(enum, "", (_ENUMS, i), said)


def _paragraphs(comment: str) -> Iterator[str]:
    """Give a comment's lines; what is indented in it is a block."""
    indented = False
    for line in comment.splitlines():
        if line.startswith("   ") is not indented:
            indented = not indented
            yield "```"
        yield line.strip()
    if indented:
        yield "```"


def _service(service: ServiceDescriptorProto, at: Steps, said: Comments) -> Iterator[str]:
    yield from ("", f"### service {service.name}", prose(said.get(at, "")))
    rows = [
        (
            code(method.name),
            _streamed(method.input_type, method.client_streaming),
            _streamed(method.output_type, method.server_streaming),
            prose(said.get((*at, _METHODS, i), "")),
        )
        for i, method in enumerate(service.method)
    ]
    yield from table(("call", "asks", "answers", "what"), rows)


def _streamed(name: str, streaming: bool) -> str:
    return f"{'stream of ' if streaming else ''}{code(_short(name))}"


def _message(message: DescriptorProto, at: Steps, said: Comments) -> Iterator[str]:
    yield from ("", f"### {message.name}", prose(said.get(at, "")))
    rows = [
        (
            str(field.number),
            code(field.name),
            _type(field, message),
            prose(said.get((*at, _FIELDS, i), "")),
        )
        for i, field in enumerate(message.field)
    ]
    yield from table(("number", "field", "type", "what"), rows)
    for i, enum in enumerate(message.enum_type):
        yield from _enum(enum, f"{message.name}.", (*at, _NESTED_ENUMS, i), said)


def _enum(enum: EnumDescriptorProto, of: str, at: Steps, said: Comments) -> Iterator[str]:
    yield from ("", f"### enum {of}{enum.name}", prose(said.get(at, "")))
    rows = [
        (str(value.number), code(value.name), prose(said.get((*at, _VALUES, i), "")))
        for i, value in enumerate(enum.value)
    ]
    yield from table(("number", "value", "what"), rows)


def _type(field: FieldDescriptorProto, within: DescriptorProto) -> str:
    entry = next((n for n in within.nested_type if n.name == _short(field.type_name)), None)
    if entry is not None and entry.options.map_entry:
        key, value = entry.field
        return f"map of {_plain(key)} to {_plain(value)}"
    if field.HasField("oneof_index"):
        return f"{_plain(field)}, one of {within.oneof_decl[field.oneof_index].name}"
    many = field.label == FieldDescriptorProto.LABEL_REPEATED
    return f"{'list of ' if many else ''}{_plain(field)}"


def _plain(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return code(_short(field.type_name))
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _short(name: str) -> str:
    return name.rpartition(".")[2]
