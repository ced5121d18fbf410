"""The wire of tRPC: what the published `@trpc/client`, versions 10 and 11, speaks over HTTP, so that nobody needs a client of ours.

Served: `httpLink`, `httpBatchLink`, `httpBatchStreamLink` (each version frames it in its own way), `httpSubscriptionLink`,
`methodOverride: 'POST'`, resumption by `lastEventId`, and a bearer token in `connectionParams` for browsers' EventSource.

Deliberately not there:

- Data transformers: every value is JSON already, and both sides would have to agree on one.
- Websockets (`wsLink`): subscriptions go out as Server-Sent Events, which every version with a subscription link reads.
- A query that goes on (`container.logs` with `follow`) as a stream of `httpBatchStreamLink`: any procedure with events can be
  subscribed to instead, also one that is a query otherwise.
- Form data and octet streams: no procedure takes a file.
- `PARSE_ERROR`: malformed JSON is a BAD_REQUEST here as at every door.
- The cursor of the next page in a batch of several calls: it is a header, and a header cannot say whose it is.
"""
