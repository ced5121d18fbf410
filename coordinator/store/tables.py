"""The Core tables behind the SQLModel rows. Queries use these: no session, no identity map, no object per row."""

from sqlmodel import SQLModel

from coordinator.store import rows

assert rows.work.Container.__tablename__ in SQLModel.metadata.tables, "importing the rows declares the tables"

metadata = SQLModel.metadata
_tables = metadata.tables

organization = _tables["organization"]
account = _tables["account"]
membership = _tables["membership"]
api_token = _tables["api_token"]
project = _tables["project"]
environment = _tables["environment"]
cluster = _tables["cluster"]
node = _tables["node"]
join_token = _tables["join_token"]
container = _tables["container"]
release = _tables["release"]
deployment = _tables["deployment"]
instance = _tables["instance"]
volume = _tables["volume"]
change = _tables["change"]
audit = _tables["audit"]
audit_head = _tables["audit_head"]
audit_checkpoint = _tables["audit_checkpoint"]
setting = _tables["setting"]
web_session = _tables["web_session"]
identity = _tables["identity"]
sign_in = _tables["sign_in"]
invitation = _tables["invitation"]
cluster_grant = _tables["cluster_grant"]
attempts = _tables["attempts"]
variable = _tables["variable"]
variable_version = _tables["variable_version"]
registry = _tables["registry"]
approval = _tables["approval"]
rate_window = _tables["rate_window"]
repeat = _tables["repeat"]
log_drain = _tables["log_drain"]
