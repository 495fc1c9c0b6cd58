# The one way in, for people and for CI.  Needs a C compiler, make, and Python with its headers.
# All that is installed goes to $(VENV), all that is built to build/, dist/ and src/ (the module).

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

# Kept in stamp names: another interpreter means a new venv, other switches a new build.
PYTHON_STAMP := $(VENV)/.python-$(subst /,_,$(PYTHON))
comma := ,
SWITCHES := $(subst $(comma),+,$(FASTSPAWN_SANITIZE))-$(FASTSPAWN_DEBUG)
BUILD_STAMP := $(VENV)/.build-$(SWITCHES)
group = $(VENV)/.group-$(1)

BIN := $(VENV)/bin
RUN := $(BIN)/python -m
PIP := $(RUN) pip --disable-pip-version-check --quiet
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
C_MAKE := $(MAKE) --no-print-directory -j $(JOBS) -f tests/c/Makefile

MODULE_INPUTS := pyproject.toml setup.py $(wildcard csrc/*.[ch] csrc/*/*.[ch] \
	src/fastspawn/*.pxd src/fastspawn/_core/*.[ph]*)
C_FILES := $(wildcard csrc/*.[ch] csrc/*/*.[ch] tests/c/*.[ch] tests/c/far/*.[ch] tests/children/*.[ch] tests/soak/*.[ch] tests/coverage/*.[ch] \
	bench/*.[ch] examples/*/*.[ch] src/fastspawn/_core/*.h src/fastspawn/include/*/*.h)
PY_FILES := $(wildcard src tests bench examples docs setup.py)
COMPILERS ?= $(or $(strip $(foreach cc,gcc clang,$(if $(shell command -v $(cc)),$(cc)))),cc)
TARGETS := x86_64-linux-musl aarch64-linux-musl x86_64-macos aarch64-macos
BACKENDS := clone3 clone vfork posix_spawn fork
VERSIONS := 3.10 3.11 3.12 3.13 3.14 3.13t 3.14t
PYENV_ROOT ?= $(HOME)/.pyenv
# The command for each of them that there is, with headers, as $$python.
each_python = set -e; for version in $(VERSIONS); do \
	for python in python$$version "$(PYENV_ROOT)"/versions/$${version%t}.*/bin/python3; do \
	    $$python tests/wheels.py is $$version 2>/dev/null || continue; $(1); break; \
	done; done

# A sanitized module needs the sanitizer's runtime in the interpreter first.  The interpreter
# itself leaks on exit by design.
SAN_LIB := $(if $(findstring address,$(FASTSPAWN_SANITIZE)),asan)
SAN_LIB += $(if $(findstring thread,$(FASTSPAWN_SANITIZE)),tsan)
SAN_ENV = $(foreach lib,$(SAN_LIB),ASAN_OPTIONS=detect_leaks=0 \
	LD_PRELOAD=$(shell $(firstword $(COMPILERS)) -print-file-name=lib$(lib).so))

# Tests mostly wait, so there are more at a time than processors: conftest.py says how many. A few
# (ARGS="-k name") are sooner done in one process, as is ARGS="-n 0" and ARGS="-p no:xdist".
PYTEST := pytest $(if $(filter -k -n% no:xdist,$(ARGS)),,-n auto --dist worksteal)

# So many failures of a whole run are asked again alone (tests/rerun.py).
RERUN ?= $(if $(ARGS),0,5)

export FASTSPAWN_SANITIZE FASTSPAWN_DEBUG
# Without bytecode each of the suite's thousands of interpreters compiles all modules anew.
unexport PYTHONDONTWRITEBYTECODE
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help serve test test-py test-backends test-cpython cpython test-c test-musl test-libcs tsan analyze coverage sweep reliability soak million soak-reset soak-work fuzz fuzz-c \
	fleet model lint \
	typing format docs manual peers bench report check-page wheel one-wheel test-wheel cross build clean

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
	$(SAN_ENV) $(RUN) $(PYTEST) $(ARGS) || $(SAN_ENV) $(BIN)/python tests/rerun.py $$? $(RERUN)

test-backends: $(BUILD_STAMP) $(call group,test) ## the Python suite under each way to spawn
	@set -e; for backend in $(BACKENDS); do echo "FASTSPAWN_BACKEND=$$backend"; \
	    FASTSPAWN_BACKEND=$$backend $(RUN) $(PYTEST) -m 'not cpython' $(ARGS); done

test-cpython: ## CPython's own suites with our names in their place, on each version found
	@$(call each_python,$$python -c 'import test.support' 2>/dev/null || continue; \
	    $(MAKE) --no-print-directory cpython PYTHON=$$python VENV=.venv-$$version)

cpython: $(BUILD_STAMP)
	@$(BIN)/python tests/cpython/conformance.py $(ARGS)

test-c: ## the C tests under ASan and UBSan, with each compiler found
	@set -e; for cc in $(COMPILERS); do \
	    $(C_MAKE) check CC=$$cc SANITIZE=address,undefined RERUN=$(RERUN); done

test-musl: ## the C tests on musl, with Debian's musl-tools beside another libc
	@$(C_MAKE) check CC=musl-gcc PRELOAD_CC=$(firstword $(COMPILERS))

# Of Debian: 2.36, 2.41, 2.43.  None may be older than the machine's own.
LIBCS ?= bookworm trixie unstable
LIBC_TESTS := $(filter-out %_soak.py %_world.py,$(wildcard tests/unit/test_template*.py \
	tests/unit/test_effect*.py tests/unit/test_checkpoint*.py tests/unit/test_snapshot_semantics.py \
	tests/unit/test_reset.py tests/unit/test_reset_guest.py))

test-libcs: $(BUILD_STAMP) $(call group,test) ## the tests of templates on other glibcs (as root; LIBCS=...)
	@set -e; for libc in $(LIBCS); do echo "glibc of $$libc"; \
	    $(BIN)/python tests/libcs.py $$libc $(BIN)/python -m pytest \
	        $(LIBC_TESTS) $(ARGS); done

analyze: ## the C core by the analysers of gcc and clang, as far as found
	@set -e; for cc in $(COMPILERS); do $(C_MAKE) --keep-going analyze CC=$$cc; done

# In a tree of its own, with a module that counts; on Linux, by gcc. /dev/shm: see hits.c.
COUNTED := /dev/shm/fastspawn-coverage
COUNTED_TREE := build/coverage/tree
COUNTING := $(abspath .venv-coverage)/bin/python
C_PROGRAMS := $(basename $(notdir $(wildcard tests/c/test_*.c tests/c/fuzz_*.c)))
coverage: ## line coverage of csrc and src by rooms, at least 90 % each (ARGS="tests/unit", MISSING=1)
	@$(MAKE) --no-print-directory VENV=.venv-coverage .venv-coverage/.group-build \
	    .venv-coverage/.group-coverage
	rm -rf $(COUNTED) build/coverage
	mkdir -p $(COUNTED) $(COUNTED_TREE)
	chmod 777 $(COUNTED)
	git ls-files -z | tar -cf - --null -T - | tar -xf - -C $(COUNTED_TREE)
	cd $(COUNTED_TREE) && FASTSPAWN_COVERAGE=$(COUNTED) $(COUNTING) -m pip \
	    --disable-pip-version-check --quiet install --no-build-isolation --editable .
	site=$$($(COUNTING) -c 'import site; print(site.getsitepackages()[0])') && \
	    cp tests/coverage/counted.* $$site && echo import counted >$$site/counted.pth
	for object in $(C_PROGRAMS) $$(cd $(COUNTED_TREE)/src/fastspawn && ls *.so _core/*.so _worker); do \
	    truncate -s 64M $(COUNTED)/$${object##*/}; chmod 666 $(COUNTED)/$${object##*/}; done
	-$(C_MAKE) check CC=gcc COVERAGE=$(COUNTED)
	-cd $(COUNTED_TREE) && $(COUNTING) -m pytest -q -n auto --dist worksteal -m "not cpython" $(ARGS)
	cd $(COUNTED_TREE) && $(COUNTING) -m coverage combine -q --rcfile=tests/coverage/counted.toml && \
	    $(COUNTING) -m coverage json -q --rcfile=tests/coverage/counted.toml \
	    -o $(abspath build)/coverage/lines.json
	@$(COUNTING) tests/coverage/report.py $(if $(MISSING),--missing) $(COUNTED) \
	    $(C_PROGRAMS:%=build/c/gcc-coverage/tests/c/%) \
	    $(COUNTED_TREE)/src/fastspawn/_core/*.so $(COUNTED_TREE)/src/fastspawn/_preload*.so \
	    $(COUNTED_TREE)/src/fastspawn/_worker build/coverage/lines.json

sweep: ## each place in the core that calls out refused, in each scene that comes to it (minutes)
	@FSP_SWEEP=all $(C_MAKE) check CC=$(firstword $(COMPILERS)) SANITIZE=address,undefined \
	    TESTS='$(wildcard tests/c/test_*sweep.c)'

tsan: ## the engine's C tests under TSan
	@$(C_MAKE) check CC=$(firstword $(COMPILERS)) SANITIZE=thread REQUIRE_SANITIZER=1 \
	    TESTS='$(wildcard tests/c/test_engine*.c tests/c/test_origin.c tests/c/tsan_*.c)'

soak: $(BUILD_STAMP) $(call group,test) ## requests to all strategies, and every kind of trouble (SECS=600, N=1000000)
	$(BIN)/python tests/soak/mixed.py $(if $(N),--requests $(N),--seconds $(or $(SECS),600)) $(ARGS)

million: $(BUILD_STAMP) $(call group,test) ## 1,000,000 requests to each strategy, and nothing is left or wrong (N=10000, ARGS="--strategy reset")
	$(BIN)/python tests/soak/million.py --requests $(or $(N),1000000) $(ARGS)

reliability: $(BUILD_STAMP) $(call group,test) ## write docs/reliability.md (ROW=7, ROW=all: run its tests first)
	$(BIN)/python tests/reliability/report.py $(if $(ROW),--run $(ROW)) $(ARGS)

soak-reset: $(BUILD_STAMP) $(call group,test) ## 1,000,000 requests to residents that are killed ... (N=10000, SECS=60)
	$(BIN)/python tests/soak/reset.py $(if $(SECS),--seconds $(SECS),--requests $(or $(N),1000000)) $(ARGS)

soak-work: $(BUILD_STAMP) $(call group,test) ## 100,000 messages to workers that are killed (N=2000, ARGS="--queue redis")
	$(BIN)/python tests/soak/work.py --messages $(or $(N),100000) $(ARGS)

fuzz: $(BUILD_STAMP) $(call group,test) ## spoilt requests, other ones each time, for SECS=60 each test
	FUZZ_SECS=$(or $(SECS),60) $(BIN)/python -m pytest -q tests/serve/test_spoilt_requests.py

CLANG ?= clang
fuzz-c: ## the C core's fuzz targets by libFuzzer, for SECS=60 each (CLANG=, FUZZ_TARGETS=)
	@command -v $(CLANG) >/dev/null || { echo 'no clang: name one with CLANG=...' >&2; exit 1; }
	@$(C_MAKE) fuzz CC=$(CLANG) NAME=fuzz FUZZ=1 SECS=$(or $(SECS),60) SANITIZE=address,undefined \
	    REQUIRE_SANITIZER=1 $(if $(FUZZ_TARGETS),TESTS='$(FUZZ_TARGETS)')

fleet: $(BUILD_STAMP) $(call group,test) ## servers behind HAProxy, killed and drained for a minute (SECS=60 RATE=100)
	PYTHONPATH=tests:. $(BIN)/python -m fleet $(if $(SECS),--seconds $(SECS)) $(if $(RATE),--rate $(RATE)) $(ARGS)

model: $(PYTHON_STAMP) ## the engine's hand-offs, every order of them, with Debian's spin (ARGS="--short")
	@$(BIN)/python tests/model/check.py $(ARGS)

# In Go: from its module, where there is a go.
ACTIONLINT := v1.7.12
$(BIN)/actionlint-$(ACTIONLINT): $(PYTHON_STAMP)
	@! command -v go >/dev/null || GOBIN="$(abspath $(BIN))" \
	    go install github.com/rhysd/actionlint/cmd/actionlint@$(ACTIONLINT) 2>/dev/null || \
	    echo 'actionlint could not be built' >&2
	@touch $@

lint: $(call group,lint) $(BIN)/actionlint-$(ACTIONLINT) ## formatting, ruff, who names whom, the workflows, the report's figures
	$(BIN)/ruff check --quiet $(PY_FILES)
	$(BIN)/ruff format --quiet --check $(PY_FILES)
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)
	@$(C_MAKE) rooms CC=$(firstword $(COMPILERS)) PYTHON=$(BIN)/python
	@told=$$(PYTHONPATH=src $(BIN)/lint-imports --no-logo --no-cache 2>&1) || \
	    { echo "$$told" >&2; exit 1; }
	$(BIN)/zizmor --quiet --offline --no-progress .github
	@if command -v $(BIN)/actionlint >/dev/null; then $(BIN)/actionlint; \
	    else echo 'no go: actionlint was left out' >&2; fi
	@test ! -e bench/results/latest.json || $(RUN) bench.report --check

check-page: $(PYTHON_STAMP) ## the page of the benchmarks in a real browser, which it needs: Chromium
	$(RUN) bench.check_page $(ARGS)

manual: $(BUILD_STAMP) $(call group,manual) ## write docs/fastspawn.1, the manual page, from the parsers
	$(BIN)/python tests/manual.py

typing: $(BUILD_STAMP) $(call group,typing) ## mypy, and the module against its .pyi
	$(RUN) mypy --no-error-summary
	$(RUN) mypy --no-error-summary --package bench
	$(RUN) mypy --no-error-summary tests/typing
	$(RUN) mypy.stubtest --concise --ignore-disjoint-bases fastspawn._core

format: $(call group,lint) ## apply the formatting that lint checks
	$(BIN)/ruff check --quiet --fix-only $(PY_FILES)
	$(BIN)/ruff format --quiet $(PY_FILES)
	$(BIN)/clang-format -i $(C_FILES)

docs: $(BUILD_STAMP) $(call group,docs) ## build the site, build/site/index.html (Python 3.11 or newer)
	$(RUN) sphinx -q -E -W --keep-going -b html docs build/site

cross: $(call group,cross) ## compile the C core for musl and macOS, with zig
	@set -e; for target in $(TARGETS); do \
	    $(C_MAKE) objects CC="$(RUN) ziglang cc -target $$target" NAME=$$target WERROR=-Werror; \
	    echo "$$target: ok"; done

# ---- release --------------------------------------------------------------------------------

# Linux: for the oldest glibc that manylinux_2_28 is for, whatever the machine's own is, by zig.
ifeq ($(shell uname),Linux)
TARGET ?= $(shell uname -m)-linux-gnu.2.28
ZIG ?= $(abspath $(BIN))/python -m ziglang
WHEEL_ENV = CC="$(ZIG) cc -target $(TARGET)" \
	_PYTHON_HOST_PLATFORM=linux-$(firstword $(subst -, ,$(TARGET))) \
	SETUPTOOLS_EXT_SUFFIX=$$($(BIN)/python tests/wheels.py suffix $(TARGET))
REPAIR = auditwheel repair --wheel-dir dist
else
REPAIR = delocate-wheel --wheel-dir dist
endif

wheel: $(call group,wheel) ## the sdist, and of it a wheel for each Python found (VERSIONS=, TARGET=)
	rm -rf dist build/wheel
	$(RUN) build --sdist --outdir dist
	@$(call each_python,echo "wheel for $$python"; \
	    $(MAKE) --no-print-directory one-wheel PYTHON=$$python VENV=.venv-$$version \
	        'ZIG=$(ZIG)')
	@set -e; for wheel in build/wheel/*.whl; do \
	    PATH="$(CURDIR)/$(BIN):$$PATH" $(REPAIR) $$wheel; done
	$(BIN)/python tests/wheels.py look dist/*.whl
	$(RUN) twine --no-color check --strict dist/*

one-wheel: $(call group,build)
	@$(WHEEL_ENV) $(PIP) wheel --no-deps --no-build-isolation --wheel-dir build/wheel dist/*.tar.gz

# The suite comes from the unpacked sdist and runs elsewhere: nothing but the wheel to import.
test-wheel: ## the suite against each wheel of `make wheel`, in an empty venv (VERSIONS=, ARGS=)
	@$(call each_python,echo "wheel in $$python"; \
	    work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; dist="$(CURDIR)/dist"; \
	    mkdir "$$work/sdist"; tar xzf dist/*.tar.gz --strip-components 1 -C "$$work/sdist"; \
	    $$python -m venv "$$work/venv"; pip="$$work/venv/bin/python -m pip --quiet"; \
	    $$pip --disable-pip-version-check install --upgrade "pip>=25.1"; \
	    $$pip install --no-index --find-links "$$dist" --no-deps fastspawn; \
	    $$pip install fastspawn --group "$$work/sdist/pyproject.toml:test"; cd "$$work"; \
	    venv/bin/python sdist/tests/wheels.py try; \
	    venv/bin/python -m $(PYTEST) $(ARGS) sdist/tests; cd "$(CURDIR)"; rm -rf "$$work")

clean: ## remove what was built; the venv stays
	rm -rf build dist src/*.egg-info src/fastspawn/*.so src/fastspawn/_core/*.so src/fastspawn/_core/*.c \
	    src/fastspawn/_worker $(VENV)/.build-*
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
