"""The example service as a process of its own, under everything that clients and servers do."""
