"""The conformance suite itself: does it notice connectors that are wrong?"""
