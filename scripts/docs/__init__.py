"""The generated pages of the documentation.

Each module has a function `pages`, which returns the texts of its pages by their paths. The pages
are committed, so that the site builds without this package.
"""
