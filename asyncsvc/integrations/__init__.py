"""Integrations with frameworks and tools, each a module or package with an extra of its own.

A module uses only public names of `asyncsvc`, as an application does. Import it by its name; this
package loads none.
"""
