# The daily commands. Each is a script of .ci, or one program of .venv.
.PHONY: help setup check format test docs pictures

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

setup: ## create .venv with the package and all tools
	.ci/setup

check: ## format, lint, types, import rules, wording and fast tests: before each commit
	.ci/lint
	.ci/types
	.ci/test-fast

format: ## format the sources, and fix what ruff can fix
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

test: ## run all tests
	.venv/bin/pytest -n 2

docs: ## write the generated pages, and build the site in site/
	.venv/bin/python -m scripts.docs
	.ci/docs site

pictures: ## make the pictures of the README again
	.venv/bin/python -m scripts.docs.pictures
