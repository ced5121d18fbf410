"""The table of procedures as a TypeScript module, for clients that want their calls checked by a compiler."""
