PYTHON ?= python3

.PHONY: demo test page
demo:  ## paint transparent pictures from prompts into out/
	@$(PYTHON) tasks.py demo

test:  ## ruff and all tests
	@$(PYTHON) tasks.py test

page:  ## open the standalone page
	@$(PYTHON) tasks.py page
