"""The tenants door: an organisation is a tenant, and everything of it has an address under `/tenants/{tenantId}`.

It offers what the procedures offer, to clients that expect plain resources, errors of three fields and streams of typed frames.
"""
