"""
Writing projects from templates: a folder of files, rendered whole or not at all.

jinja2 is part of the extra ``cli``.
"""
