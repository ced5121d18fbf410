"""What both halves of Argosy agree on: the words (`spec`), the frames (`wire`) and domain-free tools (`kit`)."""
