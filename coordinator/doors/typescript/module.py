"""`AppRouter` and all it needs, made from the table of procedures.

The types of tRPC's two versions have no procedure in common: what version 10 reads of one (`_type`, `_def._input_in` …) and what
version 11 reads (`_def.type`, `_def.$types` …) stand side by side in one type of ours. Nested routers are whole routers in version
10 and plain records in version 11; which of the two is installed is told by a field that only the older router has. So the module
needs nothing but `AnyRouter`, which every version exports, and is the same for all.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from coordinator.doors.trpc import resuming, wire
from coordinator.doors.typescript.comments import comment
from coordinator.doors.typescript.structs import Side, Types
from coordinator.procedures.table import Nothing, Procedure

_HEAD = """\
// Argosy's API as types, for the published client of tRPC, version 10 or 11:
//
//   import type { AppRouter } from './argosy';
//   const argosy = createTRPCClient<AppRouter>({ links: [httpBatchLink({ url: '…/api/trpc' })] });
//   const containers = await argosy.container.all.query({ projectId: '…' });
//
// Made by the coordinator it was fetched from. Fetch it again after an update instead of editing it.

import type { AnyRouter } from '@trpc/server';

/** What `error.data.code` of a TRPCClientError may be. */
export type ErrorCode =
%(codes)s;

/** An error as it is sent: `shape` of a TRPCClientError. */
export type ErrorShape = {
  message: string;
  code: number;
  data: { code: ErrorCode; httpStatus: number; path?: string };
};

/** An event with its id: a client that reconnects goes on behind it. */
export type Tracked<T> = { id: string; data: T };

type Config = Omit<AnyRouter['_def']['_config'], '$types' | 'transformer'> & {
  $types: { ctx: object; meta: object; errorShape: ErrorShape; transformer: false };
  transformer: {
    _default: true;
    input: { serialize(object: any): any; deserialize(object: any): any };
    output: { serialize(object: any): any; deserialize(object: any): any };
  };
};

type Procedure<Kind extends 'query' | 'mutation' | 'subscription', In, Out> = {
  (opts: any): Promise<any>;
  meta: unknown;
  _type: Kind;
  _procedure: true;
  _def: {
    $types: { input: In; output: Out; errorShape: unknown };
    procedure: true;
    type: Kind;
    meta: unknown;
    experimental_caller: boolean;
    inputs: any[];
    _config: Config;
    _meta: unknown;
    _ctx_out: object;
    _input_in: In;
    _input_out: In;
    _output_in: Out;
    _output_out: Out;
  };
};

type Query<In, Out> = Procedure<'query', In, Out>;
type Mutation<In, Out> = Procedure<'mutation', In, Out>;
type Subscription<In, Event> = Procedure<'subscription', In, AsyncIterable<Event>>;

type Router<Procedures> = Omit<AnyRouter, '_def'> & {
  _def: Omit<AnyRouter['_def'], '_config' | 'procedures' | 'record'> & {
    _config: Config;
    procedures: Procedures;
    record: Procedures;
  };
};

type Nested<Procedures> = AnyRouter['_def'] extends { queries: unknown } ? Router<Procedures> : Procedures;

"""
_STREAMS = """\
The procedures with events, as subscriptions of `httpSubscriptionLink`. Some of them are queries in `AppRouter`: a client of this
type is for following what such a query answers once."""

Tree = dict[str, "Procedure | Tree"]


def render(table: Mapping[str, Procedure]) -> str:
    procedures = [table[name] for name in sorted(table)]
    types = Types(root for procedure in procedures for root in _roots(procedure))
    codes = "\n".join(f"  | '{code}'" for code in wire.NUMBERS)
    return "\n".join(
        [
            _HEAD % {"codes": codes} + "/** Every procedure, by router. */",
            f"export type AppRouter = Router<{_record(tree(procedures), types, '', streams=False)}>;\n",
            comment(_STREAMS).rstrip(),
            f"export type AppStreams = Router<{_record(tree(_followed(procedures)), types, '', streams=True)}>;\n",
            *types.declarations(),
        ]
    )


def tree(procedures: Iterable[Procedure]) -> Tree:
    """By the words of their names: `container.logs` is `logs` in `container`."""
    root: Tree = {}
    for procedure in procedures:
        *routers, name = procedure.name.split(".")
        at = root
        for router in routers:
            inner = at.setdefault(router, {})
            assert isinstance(inner, dict), f"{procedure.name}: a procedure is no router"
            at = inner
        assert name not in at, f"{procedure.name}: a router is no procedure"
        at[name] = procedure
    return root


def _record(of: Tree, types: Types, indent: str, *, streams: bool) -> str:
    deeper = indent + "  "
    lines = []
    for name, one in of.items():
        if isinstance(one, dict):
            lines.append(f"{deeper}{name}: Nested<{_record(one, types, deeper, streams=streams)}>;\n")
        else:
            lines.append(f"{comment(one.description, deeper)}{deeper}{name}: {_type(one, types, streams)};\n")
    return "{\n" + "".join(lines) + indent + "}"


def _type(procedure: Procedure, types: Types, streams: bool) -> str:
    given = _input(procedure, types)
    if streams or procedure.kind == "subscription":
        event = types.expression(procedure.event, "output")
        return f"Subscription<{given}, {f'Tracked<{event}>' if resuming.is_tracked(procedure) else event}>"
    output = "undefined" if procedure.output is Nothing else types.expression(procedure.output, "output")
    return f"{'Query' if procedure.kind == 'query' else 'Mutation'}<{given}, {output}>"


def _input(procedure: Procedure, types: Types) -> str:
    """`void` where a call may do without."""
    fields = msgspec.structs.fields(procedure.input)
    if not fields:
        return "void"
    named = types.expression(procedure.input, "input")
    return named if any(field.required for field in fields) else f"{named} | void"


def _roots(procedure: Procedure) -> Iterable[tuple[Any, Side]]:
    if procedure.input.__struct_fields__:
        yield procedure.input, "input"
    if procedure.output is not Nothing:
        yield procedure.output, "output"
    if procedure.event is not None:
        yield procedure.event, "output"


def _followed(procedures: Iterable[Procedure]) -> Iterable[Procedure]:
    return (procedure for procedure in procedures if procedure.event is not None)
