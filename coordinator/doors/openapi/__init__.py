"""The OpenAPI document, made from the table: nothing about an operation is written here that the table does not say."""
