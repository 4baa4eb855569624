# make demo   set up and run the synthetic hospital (ARGS="--exit --json FILE --work-dir DIR")
# make test   set up and run the whole test suite
PYTHON ?= python3
VENV := .venv
# processes that run tests side by side; a test file stays in one of them
WORKERS ?= 2
BIN := $(VENV)/bin

.PHONY: help setup demo test test-vllm lint docs demo-pack clean

help:
	@sed -n 's/^# //p' $(MAKEFILE_LIST)

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,postgresql,hub,local,train,dev]'
	touch $@

# setup	 make the virtual environment (the other targets call it)
demo: setup
	$(BIN)/worklist-agent demo $(ARGS)

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# test-vllm	 the tests against a real vLLM server, about a quarter of an hour (VLLM_ENV=DIR of vllm install)
test-vllm: setup
	WORKLIST_VLLM_ENV=$(VLLM_ENV) $(BIN)/python -m pytest tests/integration/vllm $(ARGS)

# lint	 ruff, mypy --strict and the import contracts
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# docs	 write the generated pages again
docs: setup
	$(BIN)/python -m typer agent.cli utils docs --name worklist-agent --title Commands --output docs/commands.md

# demo-pack	 train the demonstration pack again, from its seed
demo-pack: setup
	$(BIN)/python -m training.demo_pack $(ARGS)

clean:
	rm -rf $(VENV) var build *.egg-info
