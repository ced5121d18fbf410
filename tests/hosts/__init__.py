"""Real engines, registries, databases and machines for the live tests, each private to the test run that started it.

Nothing here touches the engine, the database or the network settings of the machine it runs on: every host is a set of
namespaces with its own kernel-side network, and everything ends with the test run (or at the start of the next one).
"""
