# Everything starts here. `make help` lists what there is.
.DEFAULT_GOAL := help
.PHONY: help setup demo stop test check lint types contracts drift unit bench protos clean

VENV := .venv
PY := $(VENV)/bin/python
export PYTHONUNBUFFERED := 1

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | while IFS="$$(printf '\t')" read -r target text; do printf '  make %-10s %s\n' "$$target" "$$text"; done

setup: ## virtual environment, locked packages, byte-compiled (demo and test do it by themselves)
	@tools/setup.sh

demo: setup ## three jurisdictions, one mesh: the whole story, for real (KEEP=1 leaves it up, MODEL=<path or hub id>)
	@$(PY) -m demo $(if $(KEEP),--keep) $(if $(MODEL),--model '$(MODEL)')

stop: setup ## end a mesh that `make demo KEEP=1` left up
	@$(PY) -m demo --stop

test: setup ## all tests, the real engine and the story included
ifdef ARGS
	@$(PY) -m pytest $(ARGS)
else
	@$(PY) -m pytest -n 2 --dist loadfile -m 'not vllm'
	@$(PY) -m pytest -m vllm
endif

check: setup lint types contracts drift unit ## lint, types, import contracts, generated code, unit tests

lint:
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@cd protos && ../$(VENV)/bin/buf lint

types:
	@$(VENV)/bin/mypy

contracts:
	@$(VENV)/bin/lint-imports

drift:
	@tools/check_generated.sh

unit:
	@$(PY) -m pytest -q -m 'not slow and not vllm' tests/unit tests/property tests/architecture

bench: setup ## every figure of docs/benchmarks.md, interleaved, as ratios
	@$(PY) -m bench

protos: setup ## generate sovereign/ from protos/
	@PYTHON=$(PY) tools/generate_protos.sh

clean: ## remove the virtual environment and everything that was built
	@rm -rf $(VENV) .venv-chart .state .bench dist build *.egg-info
