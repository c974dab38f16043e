# `make serve` runs Icebroker; `make test` tests it; `make check` is what CI runs.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PURE   := turn/codec/*,turn/auth/*,turn/allocation/*,turn/routes.py,turn/bandwidth.py,turn/stats.py,signaling/protocol/*,signaling/room.py,signaling/session.py,signaling/client/session.py,signaling/auth.py,signaling/stats.py

KERNEL_OBJECTS := turn/kernel
MULTIARCH = $(shell gcc -print-multiarch 2>/dev/null)

# Hundreds of processes are started; none should compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help serve test check wheel bench bench-frames bench-restarts bench-workers bench-signaling kernel protocol docs format clean

help:
	@echo "make serve   run the relay and signaling on embedded defaults (ARGS=--lan opens it to the LAN)"
	@echo "make test    install what the tests need, and run them all (ARGS='tests/turn -k policy' for some)"
	@echo "make check   format, lint, types, import contracts, tests with coverage: what CI runs"
	@echo "make bench   what a packet costs, beside coturn and plain forwarding (needs root)"
	@echo "make bench-frames  what a packet costs in the driver (XDP), and how many a core relays (needs root)"
	@echo "make bench-restarts  what is lost while the relay is killed, 20 times, under 50,000 packets a second (needs root)"
	@echo "make bench-workers  what a second worker process brings, and what sharing costs (needs root)"
	@echo "make bench-signaling  what a message costs, beside the PeerJS server; delivery across nodes"
	@echo "make kernel  rebuild the BPF objects of the kernel plane (needs clang)"
	@echo "make protocol rewrite the JSON Schema and the AsyncAPI document of signaling"
	@echo "make docs    rewrite the reference pages of deploy/docs"
	@echo "make format  put the code into shape"
	@echo "make wheel   compile what decides, into a wheel for this Python (needs a C compiler)"
	@echo "make clean   remove what these commands made"

serve: $(VENV)/.installed
	@$(BIN)/icebroker serve $(ARGS)

test: $(VENV)/.installed-dev
	@tests/install.sh
	$(BIN)/pytest $(ARGS)

check: $(VENV)/.installed-dev
	@tests/install.sh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m tests.again $(ARGS)
	$(BIN)/coverage report --include='$(PURE)' --fail-under=95

# The objects are committed, so that running needs no compiler; a test rebuilds and compares them.
kernel:
	@for name in relay frames watch; do \
		clang -O2 -g0 -Wall -Wextra -Werror -target bpfel -mcpu=v3 -I/usr/include/$(MULTIARCH) \
			-c turn/kernel/$$name.bpf.c -o $(KERNEL_OBJECTS)/$$name.bpf.o || exit 1; \
	done

docs: $(VENV)/.installed-dev
	$(BIN)/python -m tests.guides.reference

bench: $(VENV)/.installed-dev
	@tests/install.sh
	$(BIN)/python -m tests.bench $(ARGS)

bench-frames: $(VENV)/.installed-dev
	@tests/install.sh
	$(BIN)/python -m tests.bench.frames $(ARGS)

bench-restarts: $(VENV)/.installed-dev
	@tests/install.sh
	$(BIN)/python -m tests.bench.restarts $(ARGS)

bench-workers: $(VENV)/.installed-dev
	@tests/install.sh
	$(BIN)/python -m tests.bench.workers $(ARGS)

bench-signaling: $(VENV)/.installed-dev
	@tests/install.sh
	$(BIN)/python -m tests.bench.signaling $(ARGS)

# Out of a copy: what is compiled in a checkout would run in place of what is edited there.
wheel: $(VENV)/.installed
	@$(BIN)/python -c 'import os, shlex, shutil, sysconfig as at; \
		compiler = shlex.split(os.environ.get("CC") or at.get_config_var("CC"))[0]; \
		header = os.path.join(at.get_path("include"), "Python.h"); \
		raise SystemExit(not (shutil.which(compiler) and os.path.exists(header)))' || \
		{ echo "A C compiler or Python's headers are missing; install them with: apt-get install gcc python3-dev" >&2; exit 1; }
	@rm -rf build dist/icebroker-*.whl && mkdir -p build/source && git archive HEAD | tar x -C build/source
	HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(BIN)/python -m pip wheel --quiet --disable-pip-version-check \
		--no-deps --wheel-dir dist build/source
	@rm -rf build && ls dist/*.whl

protocol: $(VENV)/.installed
	$(BIN)/python -m signaling.protocol.schema

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* bench-results build dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Icebroker needs Python 3.11 or newer; this is: $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11 …" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "Python cannot make an environment; install it with: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "installing Icebroker into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing Icebroker and its test environment into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed
