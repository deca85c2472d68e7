PYTHON ?= python3

.PHONY: demo test coverage page
demo:  ## paint transparent pictures from prompts into out/
	@$(PYTHON) tasks.py demo

test:  ## ruff, pyright and all tests
	@$(PYTHON) tasks.py test

coverage:  ## all tests, and how much of the library they run
	@$(PYTHON) tasks.py coverage

page:  ## open the standalone page
	@$(PYTHON) tasks.py page
