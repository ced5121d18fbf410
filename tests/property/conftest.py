"""One profile for all properties: no deadline per example, because a busy machine is no defect of ours; failures print how to
repeat them."""

from hypothesis import settings

settings.register_profile("argosy", deadline=None, print_blob=True)
settings.load_profile("argosy")
