"""A small faithful stand-in of the WebUIs: real LDM networks, made-up weights, and what their `modules` do with them.

Written from what was measured on AUTOMATIC1111 v1.10.1 and Forge: the same names, the same order of calls, the same
shapes and orders of rows, exceptions of hooks swallowed. Whatever is swallowed is kept in `WebUI.errors`.
"""
