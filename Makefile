# The one way in, for people and for CI.  Needs a C compiler, make, and Python with its headers.
# All that is installed goes to $(VENV), all that is built to build/, dist/ and src/ (the module).

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

# Kept in stamp names: another interpreter means a new venv, other switches a new build.
PYTHON_STAMP := $(VENV)/.python-$(subst /,_,$(PYTHON))
comma := ,
SWITCHES := $(subst $(comma),+,$(FASTSPAWN_SANITIZE))-$(FASTSPAWN_COVERAGE)-$(FASTSPAWN_DEBUG)
BUILD_STAMP := $(VENV)/.build-$(SWITCHES)
group = $(VENV)/.group-$(1)

BIN := $(VENV)/bin
RUN := $(BIN)/python -m
PIP := $(RUN) pip --disable-pip-version-check --quiet
C_MAKE := $(MAKE) --no-print-directory -f tests/c/Makefile

MODULE_INPUTS := pyproject.toml setup.py $(wildcard csrc/*.[ch] src/fastspawn/*.p[yx][xd])
C_FILES := $(wildcard csrc/*.[ch] tests/c/*.[ch] tests/children/*.[ch] bench/*.[ch] \
	examples/*/*.[ch] src/fastspawn/include/*/*.h)
PY_FILES := $(wildcard src tests bench examples setup.py)
COMPILERS ?= $(or $(strip $(foreach cc,gcc clang,$(if $(shell command -v $(cc)),$(cc)))),cc)
TARGETS := x86_64-linux-musl aarch64-linux-musl x86_64-macos aarch64-macos
BACKENDS := clone3 clone vfork posix_spawn fork
VERSIONS := 3.10 3.11 3.12 3.13 3.14
PYENV_ROOT ?= $(HOME)/.pyenv

# A sanitized module needs the sanitizer's runtime in the interpreter first.  The interpreter
# itself leaks on exit by design.
SAN_LIB := $(if $(findstring address,$(FASTSPAWN_SANITIZE)),asan)
SAN_LIB += $(if $(findstring thread,$(FASTSPAWN_SANITIZE)),tsan)
SAN_ENV = $(foreach lib,$(SAN_LIB),ASAN_OPTIONS=detect_leaks=0 \
	LD_PRELOAD=$(shell $(firstword $(COMPILERS)) -print-file-name=lib$(lib).so))

export FASTSPAWN_SANITIZE FASTSPAWN_COVERAGE FASTSPAWN_DEBUG
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help serve test test-py test-backends test-cpython cpython test-c test-musl test-libcs tsan soak lint \
	typing format peers bench report check-page wheel cross build clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' Makefile

# ---- run ------------------------------------------------------------------------------------

serve: $(BUILD_STAMP) ## serve `echo hi` on port 8001 (more: ARGS="--help")
	@$(RUN) fastspawn.serve --port 8001 $(ARGS)

# What the system's package manager has is not installed here: such a row says what it misses.
peers: $(BUILD_STAMP) $(call group,peers) ## fetch and build what the benchmark compares with
	@$(RUN) bench.peers

bench: $(BUILD_STAMP) $(call group,peers) ## run the benchmarks (ARGS=...)
	$(RUN) bench $(ARGS)

report: $(call group,report) ## write docs/benchmarks.* and the README's table (ARGS="--input FILE")
	$(RUN) bench.report $(ARGS)

# ---- check ----------------------------------------------------------------------------------

test: lint typing test-c test-py ## all that has to pass before a commit

test-py: $(BUILD_STAMP) $(call group,test) ## the Python suite alone (ARGS="-k name")
	$(SAN_ENV) $(RUN) pytest $(ARGS)

test-backends: $(BUILD_STAMP) $(call group,test) ## the Python suite under each way to spawn
	@set -e; for backend in $(BACKENDS); do echo "FASTSPAWN_BACKEND=$$backend"; \
	    FASTSPAWN_BACKEND=$$backend $(RUN) pytest -m 'not cpython' $(ARGS); done

test-cpython: ## CPython's own suites with our names in their place, on each version found
	@set -e; for version in $(VERSIONS); do \
	    for python in python$$version "$(PYENV_ROOT)/versions/$$version".*/bin/python3; do \
	        $$python -c 'import test.support' 2>/dev/null || continue; \
	        $(MAKE) --no-print-directory cpython PYTHON=$$python VENV=.venv-$$version; break; \
	    done; done

cpython: $(BUILD_STAMP)
	@$(BIN)/python tests/cpython/conformance.py $(ARGS)

test-c: ## the C tests under ASan and UBSan, with each compiler found
	@set -e; for cc in $(COMPILERS); do $(C_MAKE) check CC=$$cc SANITIZE=address,undefined; done

test-musl: ## the C tests on musl, with Debian's musl-tools beside another libc
	@$(C_MAKE) check CC=musl-gcc PRELOAD_CC=$(firstword $(COMPILERS))

# Of Debian: 2.36, 2.41, 2.43.  None may be older than the machine's own.
LIBCS ?= bookworm trixie unstable
LIBC_TESTS := $(filter-out %_soak.py %_world.py,$(wildcard tests/unit/test_template*.py \
	tests/unit/test_effect*.py tests/unit/test_checkpoint*.py tests/unit/test_snapshot_semantics.py))

test-libcs: $(BUILD_STAMP) $(call group,test) ## the tests of templates on other glibcs (as root; LIBCS=...)
	@set -e; for libc in $(LIBCS); do echo "glibc of $$libc"; \
	    $(BIN)/python tests/libcs.py $$libc $(BIN)/python -m pytest \
	        $(LIBC_TESTS) $(ARGS); done

tsan: ## the engine's C tests under TSan
	@$(C_MAKE) check CC=$(firstword $(COMPILERS)) SANITIZE=thread REQUIRE_SANITIZER=1 \
	    TESTS='$(wildcard tests/c/test_engine*.c tests/c/tsan_*.c)'

soak: $(BUILD_STAMP) $(call group,test) ## 200,000 requests to templates that are killed (ARGS="200000 1 http")
	$(BIN)/python tests/children/templates.py $(ARGS)

lint: $(call group,lint) ## formatting, ruff, the C core's layering, the workflows, the report's figures
	$(BIN)/ruff check --quiet $(PY_FILES)
	$(BIN)/ruff format --quiet --check $(PY_FILES)
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)
	@! grep -n 'include.*Python\.h' csrc/*.[ch]
	$(BIN)/zizmor --quiet --offline --no-progress .github
	@test ! -e bench/results/latest.json || $(RUN) bench.report --check

check-page: $(PYTHON_STAMP) ## the page of the benchmarks in a real browser, which it needs: Chromium
	$(RUN) bench.check_page $(ARGS)

typing: $(BUILD_STAMP) $(call group,typing) ## mypy, and the module against its .pyi
	$(RUN) mypy --no-error-summary
	$(RUN) mypy --no-error-summary --package bench
	$(RUN) mypy --no-error-summary tests/typing
	$(RUN) mypy.stubtest --concise --ignore-disjoint-bases fastspawn._core

format: $(call group,lint) ## apply the formatting that lint checks
	$(BIN)/ruff check --quiet --fix-only $(PY_FILES)
	$(BIN)/ruff format --quiet $(PY_FILES)
	$(BIN)/clang-format -i $(C_FILES)

cross: $(call group,cross) ## compile the C core for musl and macOS, with zig
	@set -e; for target in $(TARGETS); do \
	    $(C_MAKE) objects CC="$(RUN) ziglang cc -target $$target" NAME=$$target WERROR=-Werror; \
	    echo "$$target: ok"; done

# ---- release --------------------------------------------------------------------------------

ifeq ($(shell uname),Linux)
REPAIR = auditwheel repair --wheel-dir dist build/wheel/*.whl
else
REPAIR = delocate-wheel --wheel-dir dist build/wheel/*.whl
endif

# The suite comes from the unpacked sdist and runs elsewhere: nothing but the wheel to import.
wheel: $(call group,wheel) ## sdist -> wheel -> repair -> the suite against it in an empty venv
	rm -rf dist build/wheel
	$(RUN) build --outdir build/wheel
	PATH="$(CURDIR)/$(BIN):$$PATH" $(REPAIR)
	cp build/wheel/*.tar.gz dist/
	@set -e; work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; dist="$(CURDIR)/dist"; \
	    mkdir "$$work/sdist"; tar xzf dist/*.tar.gz --strip-components 1 -C "$$work/sdist"; \
	    $(RUN) venv "$$work/venv"; python="$$work/venv/bin/python"; \
	    $$python -m pip --disable-pip-version-check --quiet install --upgrade 'pip>=25.1'; \
	    $$python -m pip --quiet install "$$dist"/*.whl --group "$$work/sdist/pyproject.toml:test"; \
	    cd "$$work"; $$python -m pytest $(ARGS) sdist/tests

clean: ## remove what was built; the venv stays
	rm -rf build dist src/*.egg-info src/fastspawn/*.so src/fastspawn/_worker $(VENV)/.build-*
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find $(wildcard src tests bench) -name __pycache__ -prune -exec rm -rf {} +

# ---- set-up ---------------------------------------------------------------------------------

build: $(BUILD_STAMP) ## set up the venv and build the module in place

# An editable install the first time, and when the metadata change; then only the module.
$(BUILD_STAMP): $(MODULE_INPUTS) $(call group,build)
	@echo "building fastspawn._core"
	@rm -f $(VENV)/.build-*
	@$(if $(filter %.toml %.py $(VENV)/.group-%,$?),$(PIP) install --no-build-isolation --editable .,\
	    $(BIN)/python setup.py --quiet build_ext --inplace)
	@touch $@

$(VENV)/.group-%: pyproject.toml $(PYTHON_STAMP)
	@echo "installing the dependency group $*"
	@$(PIP) install --group $*
	@touch $@

$(PYTHON_STAMP):
	@command -v $(PYTHON) >/dev/null || \
	    { echo 'Python is missing: name one with PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo '$(PYTHON) is too old: Python 3.10 or newer is needed (PYTHON=...)' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo '$(PYTHON) has no venv module: install it (Debian: python3-venv)' >&2; exit 1; }
	@$(PYTHON) -c 'import os, sysconfig as s; os.stat(s.get_path("include") + "/Python.h")' \
	    2>/dev/null || { echo '$(PYTHON) has no headers: install them (Debian: python3-dev,' \
	    'Fedora: python3-devel)' >&2; exit 1; }
	@command -v $(or $(CC),cc) >/dev/null || \
	    { echo 'no C compiler: install gcc or clang' >&2; exit 1; }
	@echo "creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@
