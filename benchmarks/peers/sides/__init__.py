"""How each contestant does what a cell asks for, as its own documentation tells a user to.

A module is called after its contestant (``roster`` has the names) and has a class ``Side``.
"""
